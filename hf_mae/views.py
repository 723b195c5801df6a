"""Test-time augmentation: an endoscope has no up, so an image is also seen turned and mirrored, and scores averaged."""

import torch
from torch import Tensor, nn


def views(pixel_values: Tensor) -> list[Tensor]:
    """The eight views of square images (batch, channels, side, side): four quarter turns, each also mirrored."""
    turned = [torch.rot90(pixel_values, quarter, dims=(-2, -1)) for quarter in range(4)]
    return turned + [view.flip(-1) for view in turned]


def average_views(model: nn.Module) -> nn.Module:
    """Makes a classifier's logits the logarithm of its scores' mean over the eight views, in place.

    Their softmax is that mean, so that whatever reads logits goes on as before.
    """
    one_view = model.forward

    def forward(pixel_values: Tensor, **kwargs):
        scores, output = 0.0, None
        for view in views(pixel_values):
            output = one_view(pixel_values=view, **kwargs)
            scores = scores + output.logits.float().softmax(-1)
        output.logits = (scores / 8).clamp_min(torch.finfo(torch.float32).tiny).log()
        return output

    model.forward = forward
    return model
