"""Test-time augmentation: endoscopic images have no preferred orientation, so scores are averaged over rotated and
mirrored views."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..compat.transformers import StockModel

NUM_VIEWS = 8


def make_views(pixel_values: Tensor) -> list[Tensor]:
    """Returns eight views of square images (batch, channels, side, side): four quarter turns, each also mirrored."""
    return [make_view(pixel_values, index) for index in range(NUM_VIEWS)]


def make_view(pixel_values: Tensor, index: int) -> Tensor:
    """Returns one of the eight views of square images (..., side, side)."""
    rotated = torch.rot90(pixel_values, index % 4, dims=(-2, -1))
    return rotated.flip(-1) if index >= 4 else rotated


@contextmanager
def apply_tta(model: StockModel, enabled: bool = True) -> Iterator[StockModel]:
    """Within the block, the logits of a classifier are the logarithm of its mean scores over the eight views.

    Their softmax is this mean, so code that reads logits does not change. The model is restored at the end.

    Args:
        enabled: False: the block changes nothing.
    """
    if not enabled:
        yield model
        return
    single_view_forward = model.forward

    def forward(pixel_values: Tensor, **kwargs: Any) -> Any:
        scores, output = torch.zeros(()), None
        for view in make_views(pixel_values):
            output = single_view_forward(pixel_values=view, **kwargs)
            scores = scores.to(output.logits.device) + output.logits.float().softmax(-1)
        assert output is not None
        output.logits = (scores / NUM_VIEWS).clamp_min(torch.finfo(torch.float32).tiny).log()
        return output

    model.forward = forward
    try:
        yield model
    finally:
        del model.forward  # restores the method of the class
