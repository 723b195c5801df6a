"""Converts a state dict to its canonical form: finite float32 tensors in the storage of the original code.

Every change preserves the computed function exactly and is listed in the notes. A checkpoint for which this is not
possible is rejected.
"""

from collections.abc import Callable
from typing import Any

import torch

from .checkpoint import Checkpoint, State
from .facts import Fact, FactCode, fact
from .initialization import HEAD_STD
from .layouts.mae import PATCH_EMBED_KEY
from .messages import ConversionError, ConversionMessage
from .safety import check_tensor_storage


def canonicalize(checkpoint: Checkpoint) -> None:
    """Replaces the state dict of a checkpoint by the canonical one of the same function, and adds notes on the changes.

    Raises:
        ConversionError: If a parameter has an unsupported type or shape, or is not finite.
    """
    state, source, layout = checkpoint.state, checkpoint.source, checkpoint.layout
    _check_tensor_types(state, source, layout.is_parameter)
    _check_ndim(state, source, layout.is_parameter)
    check_tensor_storage(state, source)
    if layout.canonicalize:
        state = layout.canonicalize(checkpoint)
    checkpoint.state = _cast_to_float32(state, checkpoint.notes)
    check_weights_finite(checkpoint.state, source)


def _cast_to_float32(state: State, notes: list[Fact]) -> State:
    other_dtypes = {
        str(tensor.dtype) for tensor in state.values() if tensor.is_floating_point() and tensor.dtype != torch.float32
    }
    if not other_dtypes:
        return state
    notes.append(fact(FactCode.CAST_TO_FLOAT32, dtypes=sorted(other_dtypes)))
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _check_tensor_types(state: State, source: str, is_parameter: Callable[[str], bool]) -> None:
    """Raises ConversionError for tensors that are not dense and real; only parameters have to be floating-point."""
    for name, tensor in state.items():
        tensor_type = (
            "a meta tensor"
            if tensor.is_meta
            else "quantized"
            if tensor.is_quantized
            else "nested"
            if tensor.is_nested
            else "complex"
            if tensor.is_complex()
            else "sparse"
            if tensor.layout != torch.strided
            else str(tensor.dtype).removeprefix("torch.")
            if not tensor.is_floating_point() and is_parameter(name)
            else None
        )
        if tensor_type:
            raise ConversionError(
                ConversionMessage.TENSOR_TYPE_UNSUPPORTED, source=source, name=name, tensor_type=tensor_type
            )


def _check_ndim(state: State, source: str, is_parameter: Callable[[str], bool]) -> None:
    """Raises ConversionError for a parameter that is empty or has the wrong number of dimensions."""
    for name, tensor in state.items():
        attributes: dict[str, Any] = {"source": source, "name": name, "shape": tuple(tensor.shape)}
        if name == PATCH_EMBED_KEY and tensor.ndim != 4:
            raise ConversionError(ConversionMessage.PATCH_EMBEDDING_NOT_A_CONVOLUTION, **attributes)
        if is_parameter(name) and (tensor.ndim != (ndim := _expected_ndim(name)) or not tensor.numel()):
            raise ConversionError(ConversionMessage.DIMENSIONS_WRONG, expected=ndim, **attributes)


def _expected_ndim(name: str) -> int:
    """Returns the number of dimensions of a parameter of a ViT."""
    if name == PATCH_EMBED_KEY:
        return 4
    if name.endswith(("_token", "_tokens", "pos_embed")):
        return 3
    module, _, parameter = name.rpartition(".")
    is_vector = parameter.endswith("bias") or parameter.startswith("gamma") or "norm" in module.rpartition(".")[2]
    return 1 if is_vector else 2


def check_weights_finite(state: State, source: str) -> None:
    """Raises ConversionError for a parameter that contains NaN or infinity."""
    for name, tensor in state.items():
        # The sum needs no memory. It may overflow although all values are finite, so they are checked in that case.
        if tensor.is_floating_point() and not tensor.sum().isfinite() and not (finite := tensor.isfinite()).all():
            raise ConversionError(ConversionMessage.NOT_FINITE, source=source, name=name, count=int((~finite).sum()))


def is_untrained_head(weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Whether a head has initial values: zero bias, and weights with the original standard deviation, 2e-5."""
    return (bias is None or not bias.any()) and bool(weight.abs().max() < 10 * HEAD_STD)
