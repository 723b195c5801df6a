"""A simple implementation of the forward pass of pre-training on the original keys, for `--verify`.

It follows the order of operations in models_mae.py, with fused qkv and explicit softmax. The table
of activations is the only code shared with transformers. It is not optimized for speed.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .architecture import Architecture, count_blocks
from .checkpoint import State


def layer_norm(state: State, name: str, x: Tensor, eps: float) -> Tensor:
    """Applies the layer norm `name` to the last dimension."""
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def linear(state: State, name: str, x: Tensor) -> Tensor:
    """Applies the linear layer `name`."""
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def block(state: State, name: str, x: Tensor, heads: int, architecture: Architecture) -> Tensor:
    """Applies the pre-norm transformer block `name`; `x` is (batch, tokens, width)."""
    from transformers.activations import ACT2FN

    eps, activation = architecture.layer_norm_eps, ACT2FN[architecture.hidden_act]
    batch, tokens, width = x.shape
    qkv = linear(state, f"{name}.attn.qkv", layer_norm(state, f"{name}.norm1", x, eps))
    query, key, value = qkv.reshape(batch, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    scores = (query @ key.transpose(-2, -1)) * (width // heads) ** -0.5
    mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(batch, tokens, width)
    x = x + linear(state, f"{name}.attn.proj", mixed)
    hidden = activation(linear(state, f"{name}.mlp.fc1", layer_norm(state, f"{name}.norm2", x, eps)))
    return x + linear(state, f"{name}.mlp.fc2", hidden)


def embed_patches(state: State, pixel_values: Tensor, patch_size: int) -> Tensor:
    """Embeds pixel values (batch, channels, height, width) as patches with positions (batch, patches, width)."""
    x = F.conv2d(pixel_values, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=patch_size)
    return x.flatten(2).transpose(1, 2) + state["pos_embed"][:, 1:]


def encode(state: State, patches: Tensor, architecture: Architecture) -> Tensor:
    """Computes the tokens after the last block, before the final norm: (batch, 1 + patches, width)."""
    token = (state["cls_token"] + state["pos_embed"][:, :1]).expand(len(patches), -1, -1)
    x = torch.cat([token, patches], dim=1)
    for i in range(count_blocks(state, "blocks")):
        x = block(state, f"blocks.{i}", x, architecture.num_attention_heads, architecture)
    return x


@torch.no_grad()
def compute_pretraining(
    state: State, architecture: Architecture, pixel_values: Tensor, noise: Tensor, mask_ratio: float
) -> Tensor:
    """Computes the predicted patches (batch, patches, patch size ** 2 * channels).

    Args:
        pixel_values: (batch, channels, height, width).
        noise: (batch, patches); defines the mask.
    """
    eps = architecture.layer_norm_eps
    patches = embed_patches(state, pixel_values, architecture.patch_size)
    batch, length, width = patches.shape
    shuffle = noise.argsort(dim=1)
    restore = shuffle.argsort(dim=1)
    keep = shuffle[:, : int(length * (1 - mask_ratio))]
    visible = patches.gather(1, keep[:, :, None].expand(-1, -1, width))
    latent = layer_norm(state, "norm", encode(state, visible, architecture), eps)
    x = linear(state, "decoder_embed", latent)
    masks = state["mask_token"].expand(batch, length + 1 - x.shape[1], -1)
    tokens = torch.cat([x[:, 1:], masks], dim=1).gather(1, restore[:, :, None].expand(-1, -1, x.shape[-1]))
    x = torch.cat([x[:, :1], tokens], dim=1) + state["decoder_pos_embed"]
    for i in range(count_blocks(state, "decoder_blocks")):
        x = block(state, f"decoder_blocks.{i}", x, architecture.decoder_num_attention_heads, architecture)
    return linear(state, "decoder_pred", layer_norm(state, "decoder_norm", x, eps))[:, 1:]
