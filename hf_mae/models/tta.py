"""Test-time augmentation: an endoscope has no up, so an image is also seen turned and mirrored, and scores averaged."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..compat.transformers import StockModel

NUM_VIEWS = 8


def make_views(pixel_values: Tensor) -> list[Tensor]:
    """The eight views of square images (batch, channels, side, side): four quarter turns, each also mirrored."""
    return [make_view(pixel_values, number) for number in range(NUM_VIEWS)]


def make_view(pixel_values: Tensor, index: int) -> Tensor:
    """One of the eight views of square images (..., side, side)."""
    turned = torch.rot90(pixel_values, index % 4, dims=(-2, -1))
    return turned.flip(-1) if index >= 4 else turned


@contextmanager
def apply_tta(model: StockModel, enabled: bool = True) -> Iterator[StockModel]:
    """Within the block, a classifier's logits are the logarithm of its scores' mean over the eight views.

    Their softmax is that mean, so that whatever reads logits goes on as before. Afterwards the model is as it was.

    Args:
        enabled: else the block changes nothing.
    """
    if not enabled:
        yield model
        return
    one_view = model.forward

    def forward(pixel_values: Tensor, **kwargs: Any) -> Any:
        scores, output = torch.zeros(()), None
        for seen in make_views(pixel_values):
            output = one_view(pixel_values=seen, **kwargs)
            scores = scores.to(output.logits.device) + output.logits.float().softmax(-1)
        assert output is not None
        output.logits = (scores / NUM_VIEWS).clamp_min(torch.finfo(torch.float32).tiny).log()
        return output

    model.forward = forward
    try:
        yield model
    finally:
        del model.forward  # the class's own is seen again
