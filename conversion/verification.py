"""`--verify`: compares the converted model with its source on random input, in float32 and evaluation mode."""

from typing import Any

import torch
from torch import Tensor

from .checkpoint import ConversionPlan
from .key_mapping import to_original_state_dict
from .messages import ConversionError, ConversionMessage
from .report import Verification

SEED, BATCH_SIZE = 0, 2  # of the input
TOLERANCE = 1e-4  # relative to the largest output


@torch.no_grad()
def verify_against_source(model: Any, plan: ConversionPlan) -> Verification:
    """Compares a converted model with the baseline of its plan.

    Raises:
        ConversionError: If the outputs differ by more than `TOLERANCE` of the largest output.
    """
    config, generator = model.config, torch.Generator().manual_seed(SEED)
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    pixel_values = torch.randn(BATCH_SIZE, config.num_channels, height, width, generator=generator)
    noise = torch.rand(BATCH_SIZE, (height // config.patch_size) * (width // config.patch_size), generator=generator)
    initialized, _ = to_original_state_dict(model.state_dict(), plan.target)
    baseline, expected = plan.baseline(initialized | plan.state, pixel_values, noise)
    actual = compute_outputs(model, pixel_values, noise)
    difference, largest = (actual - expected).abs().max().item(), expected.abs().max().item()
    if not difference <= TOLERANCE * largest:
        raise ConversionError(
            ConversionMessage.VERIFICATION_FAILED, difference=difference, largest=largest, baseline=baseline.value
        )
    return Verification(baseline, SEED, BATCH_SIZE, difference, largest)


def compute_outputs(model: Any, pixel_values: Tensor, noise: Tensor) -> Tensor:
    """Computes the logits of a classifier, the tokens of a backbone, or the predicted patches of pre-training.

    Args:
        pixel_values: (batch, channels, height, width).
        noise: (batch, patches); defines the mask of pre-training.
    """
    was_training = model.training
    model.eval()
    arguments = {"noise": noise} if model.config.model_type == "vit_mae" else {}
    outputs = model(pixel_values=pixel_values, **arguments)
    model.train(was_training)
    output: Tensor = outputs.logits if "logits" in outputs else outputs.last_hidden_state
    return output
