"""Saliency maps of a classifier: attention rollout and Grad-CAM."""

import math

import torch
from torch import Tensor, nn

from ..compat.transformers import StockModel, use_attn_implementation


def uses_mean_pooling(model: StockModel) -> bool:
    """Whether the classifier uses the mean of the patch tokens, rather than the class token."""
    return bool(getattr(model.config, "use_mean_pooling", False))


@torch.no_grad()
def attention_rollout(model: StockModel, pixel_values: Tensor) -> Tensor:
    """Computes the attention rollout: contribution of each patch through the attention of all blocks (Abnar and
    Zuidema, 2020).

    Args:
        model: a stock ViT or BEiT classifier in evaluation mode.
        pixel_values: (batch, 3, height, width).

    Returns:
        Maps (batch, grid, grid), scaled to 0 to 1 per image.
    """
    with use_attn_implementation(model, "eager"):  # the other implementations return no attention weights
        attentions = model(pixel_values=pixel_values, output_attentions=True).attentions
    rollout = None
    for attention in attentions:
        weights = attention.float().mean(1)
        weights = 0.5 * weights + 0.5 * torch.eye(weights.shape[-1], device=weights.device)  # residual connection
        rollout = weights if rollout is None else weights @ rollout
    assert rollout is not None
    pooled = rollout[:, 1:].mean(1) if uses_mean_pooling(model) else rollout[:, 0]
    return _min_max_normalize(_to_grid(pooled[:, 1:]))


class _TokensToMap(nn.Module):
    """Splits tokens (batch, 1 + patches, width) into a feature map (batch, width, grid, grid) and the class token."""

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        side = math.isqrt(tokens.shape[1] - 1)
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side)), tokens[:, :1]


class _MapToTokens(nn.Module):
    """Inverse of `_TokensToMap`."""

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        patches, class_token = inputs
        return torch.cat([class_token, patches.flatten(2).transpose(1, 2)], dim=1)


def grad_cam(model: StockModel, pixel_values: Tensor, targets: Tensor) -> Tensor:
    """Computes Grad-CAM (Selvaraju et al., 2017; captum) at the input of the last block's attention.

    After that attention the patches do not reach the class token, so their gradient would be zero.

    Args:
        model, pixel_values: see `attention_rollout`.
        targets: class ids (batch,) to explain.

    Returns:
        Maps (batch, grid, grid), scaled to 0 to 1 per image.
    """
    from captum.attr import LayerGradCam

    block = model.base_model.layers[-1]
    norm, tokens_to_map = block.layernorm_before, _TokensToMap()
    block.layernorm_before = nn.Sequential(norm, tokens_to_map, _MapToTokens())
    try:
        cam = LayerGradCam(lambda values: model(pixel_values=values).logits, tokens_to_map)
        relevance = cam.attribute(pixel_values, targets, relu_attributions=True)[0]
    finally:
        block.layernorm_before = norm
    return _min_max_normalize(relevance[:, 0].detach().float())


def _to_grid(patches: Tensor) -> Tensor:
    side = math.isqrt(patches.shape[-1])
    return patches.unflatten(-1, (side, side))


def _min_max_normalize(maps: Tensor) -> Tensor:
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low).clamp_min(1e-12)
