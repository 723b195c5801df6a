"""Saliency maps of a classifier: Grad-CAM (Selvaraju et al., 2017)."""

import math
from typing import Any

import torch
from torch import Tensor

from ..compat.transformers import StockModel


def grad_cam(model: StockModel, pixel_values: Tensor, targets: Tensor) -> Tensor:
    """Computes Grad-CAM at the input of the last block's attention.

    After that attention the patches do not reach the class token, so their gradient would be zero.

    Args:
        model: a stock ViT or BEiT classifier in evaluation mode.
        pixel_values: (batch, 3, height, width).
        targets: class ids (batch,) to explain.

    Returns:
        Maps (batch, grid, grid), scaled to 0 to 1 per image.
    """
    outputs: list[Any] = []
    norm = model.base_model.layers[-1].layernorm_before
    hook = norm.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with torch.enable_grad():
        logits = model(pixel_values=pixel_values).logits
    hook.remove()
    (gradient,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), outputs)
    patches, channel_weights = outputs[0][:, 1:], gradient[:, 1:].mean(1, keepdim=True)
    relevance = (channel_weights * patches).sum(-1).clamp_min(0).detach().float()
    low, high = relevance.amin(1, keepdim=True), relevance.amax(1, keepdim=True)
    side = math.isqrt(relevance.shape[1])
    return ((relevance - low) / (high - low).clamp_min(1e-12)).unflatten(1, (side, side))
