"""Where a classifier looks: attention rollout and Grad-CAM."""

import math

import torch
from torch import Tensor, nn

from ..compat.transformers import StockModel, use_attn_implementation


def uses_mean_pooling(model: StockModel) -> bool:
    """Whether the classifier reads the mean of the patch tokens, rather than the class token."""
    return bool(getattr(model.config, "use_mean_pooling", False))


@torch.no_grad()
def attention_rollout(model: StockModel, pixel_values: Tensor) -> Tensor:
    """How much each patch reaches what is classified through the attention of all blocks (Abnar and Zuidema 2020).

    Args:
        model: a stock ViT or BEiT classifier in evaluation mode.
        pixel_values: (batch, 3, height, width).

    Returns:
        (batch, grid, grid), each image's from 0 to 1.
    """
    with use_attn_implementation(model, "eager"):  # the only one that gives its attention away
        attentions = model(pixel_values=pixel_values, output_attentions=True).attentions
    rolled = None
    for attention in attentions:
        mixed = attention.float().mean(1)
        mixed = 0.5 * mixed + 0.5 * torch.eye(mixed.shape[-1], device=mixed.device)  # the residual connection
        rolled = mixed if rolled is None else mixed @ rolled
    assert rolled is not None
    read = rolled[:, 1:].mean(1) if uses_mean_pooling(model) else rolled[:, 0]
    return _min_max_normalize(_to_grid(read[:, 1:]))


class _TokensToMap(nn.Module):
    """Tokens (batch, 1 + patches, width) -> a map (batch, width, grid, grid), as Grad-CAM knows them, and the rest."""

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        side = math.isqrt(tokens.shape[1] - 1)
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side)), tokens[:, :1]


class _MapToTokens(nn.Module):
    """The way back."""

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        patches, first = inputs
        return torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1)


def grad_cam(model: StockModel, pixel_values: Tensor, targets: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017) of captum, on what the last block's attention reads.

    Behind that attention the patches no longer reach a class token, so that they would have no gradient there.

    Args:
        model, pixel_values: as of `attention_rollout`.
        targets: class ids (batch,) that are explained.

    Returns:
        (batch, grid, grid), each image's from 0 to 1.
    """
    from captum.attr import LayerGradCam

    block = model.base_model.layers[-1]
    norm, as_map = block.layernorm_before, _TokensToMap()
    block.layernorm_before = nn.Sequential(norm, as_map, _MapToTokens())
    try:
        cam = LayerGradCam(lambda values: model(pixel_values=values).logits, as_map)
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
