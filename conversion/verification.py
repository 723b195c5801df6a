"""`--verify`: the source and what it became on the same random input, in float32 and evaluation mode."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .architecture import Architecture
from .checkpoint import Checkpoint
from .errors import ConversionError
from .key_mapping import MODEL_CLASSES
from .mae_forward import mae_outputs
from .timm_layout import timm_model_args

TOLERANCE = 1e-4  # relative to the largest output
State = dict[str, Tensor]


@torch.no_grad()
def verify_against_source(
    model: Any, state: State, architecture: Architecture, target: str, checkpoint: Checkpoint
) -> dict[str, Any]:
    """Compares a model with what it came from.

    The other side is the source itself where that is a model of transformers of the same class and size, timm's
    VisionTransformer for a file that it can load, and else the reference's arithmetic as `reference_forward` has it.

    Args:
        model: what was made.
        state: its parameters by the reference's names.
        target: a key of `names.TARGETS`.

    Returns:
        `against`, `input`, `max_abs_difference` and `max_abs_output`.

    Raises:
        ConversionError: they differ by more than `TOLERANCE` of the largest output.
    """
    generator = torch.Generator().manual_seed(0)
    rows, columns = architecture.grid_size
    pixel_values = torch.randn(2, architecture.num_channels, *architecture.height_width, generator=generator)
    noise = torch.rand(2, rows * columns, generator=generator)
    ours = compute_outputs(model, target, pixel_values, noise)
    against, theirs = _compute_source_outputs(checkpoint, state, architecture, target, pixel_values, noise)
    if theirs is None:
        against = "the arithmetic of facebookresearch/mae, written out"
        ratio = model.config.mask_ratio if target == "pretraining" else 0.0
        theirs = mae_outputs(state, architecture, target, pixel_values, noise, ratio)
    return compare_outputs(ours, theirs, against)


def compare_outputs(actual: Tensor, expected: Tensor, baseline: str) -> dict[str, Any]:
    """What a certificate says of two outputs for the same input.

    Raises:
        ConversionError: they differ by more than `TOLERANCE` of the largest.
    """
    difference, largest = (actual - expected).abs().max().item(), expected.abs().max().item()
    if not difference <= TOLERANCE * largest:
        raise ConversionError(
            f"The conversion does not hold: outputs differ by {difference:.2g} (largest output {largest:.2g}) from "
            f"{baseline}, so nothing was written. Weights that are not finite do this."
        )
    return {
        "against": baseline,
        "input": "random normal, batch 2, seed 0",
        "max_abs_difference": difference,
        "max_abs_output": largest,
    }


def compute_outputs(model: Any, target: str, pixel_values: Tensor, noise: Tensor | None = None) -> Tensor:
    """Logits of a classifier, tokens of a backbone, predicted patches of pre-training."""
    was_training = model.training
    model.eval()
    output: Tensor
    if target == "pretraining":
        output = model(pixel_values=pixel_values, noise=noise).logits
    else:
        found = model(pixel_values=pixel_values)
        output = found.last_hidden_state if target == "backbone" else found.logits
    model.train(was_training)
    return output


def _compute_source_outputs(
    checkpoint: Checkpoint,
    state: State,
    architecture: Architecture,
    target: str,
    pixel_values: Tensor,
    noise: Tensor,
) -> tuple[str, Tensor | None]:
    """What the source's own stock model gives, and its name; None where it has none of the same class and size."""
    if checkpoint.stock_class is not None:
        same = all(name in checkpoint.state and checkpoint.state[name].shape == t.shape for name, t in state.items())
        if checkpoint.stock_class != MODEL_CLASSES[target] or not same:
            return "", None
        from .pretrained import load_stock_model

        source, _ = load_stock_model(checkpoint.source, checkpoint.stock_class)
        return f"{checkpoint.source} in transformers", compute_outputs(source, target, pixel_values, noise)
    if target == "pretraining":
        return "", None
    try:
        theirs = _compute_timm_outputs(state, architecture, target, pixel_values)
    except ImportError:
        return "", None
    return "timm's VisionTransformer", theirs


def _compute_timm_outputs(state: State, architecture: Architecture, target: str, pixel_values: Tensor) -> Tensor:
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(
        **timm_model_args(architecture),
        num_classes=0 if target == "backbone" else len(state["head.weight"]),
        global_pool="avg" if target == "mean" else "token",
        norm_layer=partial(nn.LayerNorm, eps=architecture.layer_norm_eps),
    ).eval()
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    output: Tensor = model.forward_features(pixel_values) if target == "backbone" else model(pixel_values)
    return output
