"""The forward pass of pre-training on the original keys, for `--verify`: timm's blocks in the order of models_mae.py.

It is independent of transformers, and not optimized for speed.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .architecture import Architecture, count_blocks
from .checkpoint import State


@torch.no_grad()
def compute_pretraining(
    state: State, architecture: Architecture, pixel_values: Tensor, noise: Tensor, mask_ratio: float
) -> Tensor:
    """Computes the predicted patches (batch, patches, patch size ** 2 * channels).

    Args:
        pixel_values: (batch, channels, height, width).
        noise: (batch, patches); defines the mask.
    """

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def run_blocks(name: str, x: Tensor, heads: int) -> Tensor:
        """Applies the blocks and the norm after them to (batch, tokens, width)."""
        for i in range(count_blocks(state, f"{name}blocks")):
            x = _load_block(state, f"{name}blocks.{i}.", heads, architecture)(x)
        norm = f"{name}norm"
        return F.layer_norm(
            x, x.shape[-1:], state[f"{norm}.weight"], state[f"{norm}.bias"], architecture.layer_norm_eps
        )

    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    patches = F.conv2d(pixel_values, weight, bias, stride=architecture.patch_size).flatten(2).transpose(1, 2)
    patches = patches + state["pos_embed"][:, 1:]
    batch, length, width = patches.shape
    shuffle = noise.argsort(dim=1)
    keep = shuffle[:, : int(length * (1 - mask_ratio))]
    visible = patches.gather(1, keep[:, :, None].expand(-1, -1, width))
    token = (state["cls_token"] + state["pos_embed"][:, :1]).expand(batch, -1, -1)
    x = linear("decoder_embed", run_blocks("", torch.cat([token, visible], dim=1), architecture.num_attention_heads))
    masks = state["mask_token"].expand(batch, length + 1 - x.shape[1], -1)
    restore = shuffle.argsort(dim=1)[:, :, None].expand(-1, -1, x.shape[-1])
    tokens = torch.cat([x[:, 1:], masks], dim=1).gather(1, restore)
    x = torch.cat([x[:, :1], tokens], dim=1) + state["decoder_pos_embed"]
    return linear("decoder_pred", run_blocks("decoder_", x, architecture.decoder_num_attention_heads))[:, 1:]


def _load_block(state: State, prefix: str, heads: int, architecture: Architecture) -> nn.Module:
    from timm.layers import get_act_layer
    from timm.models.vision_transformer import Block

    weights = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    inner, width = weights["mlp.fc1.weight"].shape
    norm_layer: Any = partial(nn.LayerNorm, eps=architecture.layer_norm_eps)
    block: nn.Module = Block(
        width,
        heads,
        mlp_ratio=inner / width,
        qkv_bias=True,
        norm_layer=norm_layer,
        act_layer=get_act_layer(architecture.hidden_act),
    )
    block.load_state_dict(weights)
    return block.eval()
