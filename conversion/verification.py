"""`--verify`: compares the converted model with its source on random input, in float32 and evaluation mode."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .architecture import Architecture
from .checkpoint import Checkpoint
from .errors import ConversionError
from .key_mapping import MODEL_CLASSES
from .mae_forward import mae_outputs
from .messages import ConversionMessage
from .timm_layout import timm_model_args

TOLERANCE = 1e-4  # relative to the largest output
State = dict[str, Tensor]


@torch.no_grad()
def verify_against_source(
    model: Any, state: State, architecture: Architecture, target: str, checkpoint: Checkpoint
) -> dict[str, Any]:
    """Compares a converted model with its source.

    The baseline is the source itself if it is a transformers model of the same class and size, timm's
    VisionTransformer if timm can load the weights, and otherwise `mae_forward.mae_outputs`.

    Args:
        model: the converted model.
        state: its parameters under their original names.
        target: a key of `key_mapping.KEY_MAPPINGS`.

    Returns:
        `against`, `input`, `max_abs_difference` and `max_abs_output`.

    Raises:
        ConversionError: If the outputs differ by more than `TOLERANCE` of the largest output.
    """
    generator = torch.Generator().manual_seed(0)
    rows, columns = architecture.grid_size
    pixel_values = torch.randn(2, architecture.num_channels, *architecture.height_width, generator=generator)
    noise = torch.rand(2, rows * columns, generator=generator)
    actual = compute_outputs(model, target, pixel_values, noise)
    baseline, expected = _compute_source_outputs(checkpoint, state, architecture, target, pixel_values, noise)
    if expected is None:
        baseline = "a reimplementation of facebookresearch/mae"
        ratio = model.config.mask_ratio if target == "pretraining" else 0.0
        expected = mae_outputs(state, architecture, target, pixel_values, noise, ratio)
    return compare_outputs(actual, expected, baseline)


def compare_outputs(actual: Tensor, expected: Tensor, baseline: str) -> dict[str, Any]:
    """Compares two outputs for the same input, for the report.

    Raises:
        ConversionError: If they differ by more than `TOLERANCE` of the largest output.
    """
    difference, largest = (actual - expected).abs().max().item(), expected.abs().max().item()
    if not difference <= TOLERANCE * largest:
        raise ConversionError(
            ConversionMessage.VERIFICATION_FAILED, difference=difference, largest=largest, baseline=baseline
        )
    return {
        "against": baseline,
        "input": "random normal, batch 2, seed 0",
        "max_abs_difference": difference,
        "max_abs_output": largest,
    }


def compute_outputs(model: Any, target: str, pixel_values: Tensor, noise: Tensor | None = None) -> Tensor:
    """Computes the logits of a classifier, the tokens of a backbone, or the predicted patches of pre-training."""
    was_training = model.training
    model.eval()
    output: Tensor
    if target == "pretraining":
        output = model(pixel_values=pixel_values, noise=noise).logits
    else:
        outputs = model(pixel_values=pixel_values)
        output = outputs.last_hidden_state if target == "backbone" else outputs.logits
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
    """Returns the name and the outputs of the model of the source; None if its class or size differs."""
    if checkpoint.stock_class is not None:
        same_shapes = all(
            name in checkpoint.state and checkpoint.state[name].shape == tensor.shape for name, tensor in state.items()
        )
        if checkpoint.stock_class != MODEL_CLASSES[target] or not same_shapes:
            return "", None
        from .pretrained import load_stock_model

        source, _ = load_stock_model(checkpoint.source, checkpoint.stock_class)
        return f"{checkpoint.source} in transformers", compute_outputs(source, target, pixel_values, noise)
    if target == "pretraining":
        return "", None
    try:
        return "timm's VisionTransformer", _compute_timm_outputs(state, architecture, target, pixel_values)
    except ImportError:
        return "", None


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
