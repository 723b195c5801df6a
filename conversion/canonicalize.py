"""Converts a state dict to its canonical form: finite float32 tensors, one linear head, one row per position.

Every change preserves the computed function exactly and is listed in the notes. A checkpoint for which this is not
possible is rejected.
"""

import re
from collections.abc import Callable

import torch

from .architecture import infer_patch_grid
from .errors import ConversionError
from .initialization import HEAD_STD
from .key_mapping import expected_ndim, is_mae_key
from .layouts import PATCH_EMBED_KEY
from .messages import ConversionMessage
from .metadata import CheckpointMetadata
from .safety import check_tensor_storage

State = dict[str, torch.Tensor]
PROBE_EPS = 1e-6  # main_linprobe.py: BatchNorm1d(width, affine=False, eps=1e-6)


def canonicalize_state_dict(state: State, metadata: CheckpointMetadata, source: str) -> tuple[State, list[str]]:
    """Returns the canonical state dict of the same function, and notes on the changes.

    Args:
        state: parameters under their original names.
        metadata: metadata of the checkpoint; its image size defines the grid of the position embeddings.

    Raises:
        ConversionError: If a tensor has an unsupported type or is not finite, or the encoder has parameters that the
            original code does not have.
    """
    notes: list[str] = []
    check_tensor_types(state, source, is_mae_key)
    if state[PATCH_EMBED_KEY].ndim != 4:
        raise ConversionError(
            ConversionMessage.PATCH_EMBEDDING_NOT_A_CONVOLUTION,
            source=source,
            name=PATCH_EMBED_KEY,
            shape=tuple(state[PATCH_EMBED_KEY].shape),
        )
    _check_ndim(state, source)
    check_tensor_storage(state, source)
    _check_encoder_keys(state, source)
    state = _fold_batch_norm(state, source, notes)
    state = _add_class_token_position(state, metadata, source, notes)
    state = cast_to_float32(state, notes)
    check_weights_finite(state, source)
    return state, notes


def cast_to_float32(state: State, notes: list[str]) -> State:
    """Casts the parameters to float32, and adds a note on their previous types."""
    other_dtypes = {
        str(tensor.dtype) for tensor in state.values() if tensor.is_floating_point() and tensor.dtype != torch.float32
    }
    if not other_dtypes:
        return state
    notes.append(f"{', '.join(sorted(other_dtypes))} weights were converted to float32")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def check_tensor_types(state: State, source: str, is_parameter: Callable[[str], bool]) -> None:
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


def _check_ndim(state: State, source: str) -> None:
    """Raises ConversionError for an MAE parameter that is empty or has the wrong number of dimensions."""
    for name, tensor in state.items():
        ndim = expected_ndim(name)
        if ndim is not None and (tensor.ndim != ndim or not tensor.numel()):
            raise ConversionError(
                ConversionMessage.DIMENSIONS_WRONG,
                source=source,
                name=name,
                shape=tuple(tensor.shape),
                expected=ndim,
            )


def _check_encoder_keys(state: State, source: str) -> None:
    unknown = [name for name in state if re.match(r"(blocks|patch_embed)\.", name) and not is_mae_key(name)]
    if unknown:
        raise ConversionError(ConversionMessage.ENCODER_UNSUPPORTED, source=source, names=unknown[:4])


def _fold_batch_norm(state: State, source: str, notes: list[str]) -> State:
    """Folds the batch norm (without weights) of a linear probe into its linear layer."""
    if "head.0.running_mean" not in state or "head.1.weight" not in state:
        return state
    if "head.0.weight" in state:
        raise ConversionError(ConversionMessage.BATCH_NORM_UNSUPPORTED, source=source)
    probe = {name: tensor for name, tensor in state.items() if name.startswith("head.")}
    mean, variance = probe["head.0.running_mean"].double(), probe["head.0.running_var"].double()
    weight = probe["head.1.weight"].double() / (variance + PROBE_EPS).sqrt()
    bias = probe["head.1.bias"].double() - weight @ mean
    notes.append("the head of a linear probe (batch norm, linear) was folded into one linear layer")
    other_parameters = {name: tensor for name, tensor in state.items() if name not in probe}
    return other_parameters | {"head.weight": weight.float(), "head.bias": bias.float()}


def _add_class_token_position(state: State, metadata: CheckpointMetadata, source: str, notes: list[str]) -> State:
    """Adds a row of zeros for the class token to position embeddings without one (timm's `no_embed_class`)."""
    positions = state.get("pos_embed")
    if positions is None or positions.ndim != 3:  # read_architecture reports missing parameters
        return state
    patch_size = state[PATCH_EMBED_KEY].shape[-2:]
    if infer_patch_grid(positions.shape[1], patch_size, metadata.image_size, source).has_class_token:
        return state
    notes.append(
        "a row of zeros was added to the position embeddings for the class token (the model uses timm's no_embed_class)"
    )
    return state | {"pos_embed": torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)}


def check_weights_finite(state: State, source: str) -> None:
    """Raises ConversionError for a parameter that contains NaN or infinity."""
    for name, tensor in state.items():
        # The sum needs no memory. It may overflow although all values are finite, so they are checked in that case.
        if tensor.is_floating_point() and not tensor.sum().isfinite() and not (finite := tensor.isfinite()).all():
            raise ConversionError(ConversionMessage.NOT_FINITE, source=source, name=name, count=int((~finite).sum()))


def is_untrained_head(weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Whether a head has initial values: zero bias, and weights with the original standard deviation, 2e-5."""
    return (bias is None or not bias.any()) and bool(weight.abs().max() < 10 * HEAD_STD)
