"""Bringing a state dict to the reference's form: real finite float32 tensors, one linear head, a row for each position.

Whatever changes here is exact, and noted; what would change the function is refused.
"""

import re
from collections.abc import Callable

import torch

from .architecture import infer_patch_grid
from .errors import ConversionError
from .initialization import HEAD_STD
from .key_mapping import expected_ndim, is_mae_key
from .layouts import PATCH_EMBED_KEY
from .metadata import CheckpointMetadata
from .safety import check_tensor_storage

State = dict[str, torch.Tensor]
PROBE_EPS = 1e-6  # main_linprobe.py: BatchNorm1d(width, affine=False, eps=1e-6)


def canonicalize_state_dict(state: State, metadata: CheckpointMetadata, source: str) -> tuple[State, list[str]]:
    """The same function in the reference's form, and notes on what was changed.

    Args:
        state: parameters by the reference's names.
        metadata: what the checkpoint tells of itself; its image size tells what the rows of the positions are.

    Raises:
        ConversionError: a tensor is of an odd kind or not finite, or the encoder has parameters that the reference
            does not have.
    """
    notes: list[str] = []
    check_tensor_types(state, source, is_mae_key)
    if state[PATCH_EMBED_KEY].ndim != 4:
        raise ConversionError(
            f"{source}: {PATCH_EMBED_KEY} is of {state[PATCH_EMBED_KEY].ndim} dimensions {tuple(state[PATCH_EMBED_KEY].shape)}, a linear layer "
            "over flattened patches; only a convolution (width, channels, patch, patch) tells the order of its "
            "pixels."
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
    """Parameters in float32, with a note where they were not."""
    lower = {str(t.dtype) for t in state.values() if t.is_floating_point() and t.dtype != torch.float32}
    if not lower:
        return state
    notes.append(f"{', '.join(sorted(lower))} weights were widened or narrowed to float32")
    return {n: t.float() if t.is_floating_point() else t for n, t in state.items()}


def check_tensor_types(state: State, source: str, is_parameter: Callable[[str], bool]) -> None:
    """Refuses tensors that hold no plain real numbers; of whole numbers may be what is no parameter."""
    for name, tensor in state.items():
        kind = (
            "a meta tensor, which holds no numbers"
            if tensor.is_meta
            else "quantised"
            if tensor.is_quantized
            else "nested"
            if tensor.is_nested
            else "complex"
            if tensor.is_complex()
            else "sparse"
            if tensor.layout != torch.strided
            else f"of whole numbers ({str(tensor.dtype).removeprefix('torch.')})"
            if not tensor.is_floating_point() and is_parameter(name)
            else None
        )
        if kind:
            raise ConversionError(f"{source}: {name} is {kind}, and only plain tensors of real numbers can be read.")


def _check_ndim(state: State, source: str) -> None:
    """Refuses a parameter of the reference that is empty, or of more or fewer dimensions than it has there."""
    for name, tensor in state.items():
        wanted = expected_ndim(name)
        if wanted is not None and (tensor.ndim != wanted or not tensor.numel()):
            raise ConversionError(f"{source}: {name} is of shape {tuple(tensor.shape)}, and has {wanted} dimensions.")


def _check_encoder_keys(state: State, source: str) -> None:
    inside = [name for name in state if re.match(r"(blocks|patch_embed)\.", name) and not is_mae_key(name)]
    if inside:
        raise ConversionError(
            f"{source} has parameters inside the encoder that facebookresearch/mae does not have, so it "
            f"computes something else: {', '.join(inside[:4])}."
        )


def _fold_batch_norm(state: State, source: str, notes: list[str]) -> State:
    """The reference's linear probe, a batch norm without weights and a linear layer, as the one linear layer it is."""
    if "head.0.running_mean" not in state or "head.1.weight" not in state:
        return state
    if "head.0.weight" in state:
        raise ConversionError(f"{source} has a head of a batch norm with weights (head.0.weight), which is not read.")
    probe = {name: tensor for name, tensor in state.items() if name.startswith("head.")}
    mean, variance = probe["head.0.running_mean"].double(), probe["head.0.running_var"].double()
    weight = probe["head.1.weight"].double() / (variance + PROBE_EPS).sqrt()
    bias = probe["head.1.bias"].double() - weight @ mean
    notes.append("the head of a linear probe (batch norm, linear) was folded into one linear layer")
    rest = {name: tensor for name, tensor in state.items() if name not in probe}
    return rest | {"head.weight": weight.float(), "head.bias": bias.float()}


def _add_class_token_position(state: State, metadata: CheckpointMetadata, source: str, notes: list[str]) -> State:
    """Position embeddings with a row for the class token: zeros where there is none (timm's `no_embed_class`)."""
    positions = state.get("pos_embed")
    if positions is None or positions.ndim != 3:  # whoever reads the sizes says what is missing
        return state
    if infer_patch_grid(
        positions.shape[1], state[PATCH_EMBED_KEY].shape[-2:], metadata.image_size, source
    ).has_class_token:
        return state
    notes.append("the position embeddings have no row for the class token (timm's no_embed_class): it is zero")
    return state | {"pos_embed": torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)}


def check_weights_finite(state: State, source: str) -> None:
    """Raises ConversionError by the name of a parameter that holds NaN or an infinity."""
    for name, tensor in state.items():
        # A sum costs no memory; it may overflow where all is finite, so that is looked at more closely.
        if tensor.is_floating_point() and not tensor.sum().isfinite() and not (finite := tensor.isfinite()).all():
            count = int((~finite).sum())
            raise ConversionError(
                f"{source}: {name} holds {count} numbers that are not finite (NaN or infinite): the training diverged, "
                "or the file is damaged; take an earlier checkpoint."
            )


def is_untrained_head(weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Whether a head was drawn and never trained: zero bias, and weights of the reference's standard deviation,
    2e-5."""
    return (bias is None or not bias.any()) and bool(weight.abs().max() < 10 * HEAD_STD)
