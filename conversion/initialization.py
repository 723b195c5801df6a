"""Initial values of the original code (`initialize_weights` in models_mae.py, main_finetune.py for the head)."""

import math

import torch
from torch import nn

from .key_mapping import to_original_state_dict, to_transformers_state_dict
from .layouts.mae import TARGETS

HEAD_STD = 2e-5  # main_finetune.py: trunc_normal_(model.head.weight, std=2e-5)
TOKEN_STD = 0.02


def sincos_position_embedding(width: int, grid: int) -> torch.Tensor:
    """Computes the fixed 2-D sine-cosine position embedding: float32 (1, 1 + grid * grid, width), class token first.

    The first half of the width encodes the column and the second half the row, each as sines followed by cosines, as
    in `get_2d_sincos_pos_embed` of the original code (pos_embed.py). The row of the class token is zero.
    """
    frequencies = 1.0 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies  # (grid, width / 4)
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)  # (grid, width / 2)
    column, row = axis.repeat(grid, 1), axis.repeat_interleave(grid, dim=0)
    patches = torch.cat([column, row], dim=1)
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), patches]).float()[None]


def initial_value(name: str, shape: tuple[int, ...], generator: torch.Generator | None = None) -> torch.Tensor:
    """Draws the initial float32 value of a parameter with this original name.

    Linear layers and the patch embedding (as a linear layer) are Xavier uniform with zero bias. Norms have weight 1
    and bias 0. Tokens are normal with std 0.02, positions sine-cosine, and the classification head truncated normal
    with std 2e-5.
    """
    tensor = torch.empty(shape)
    if name in ("pos_embed", "decoder_pos_embed"):
        return sincos_position_embedding(shape[-1], math.isqrt(shape[1] - 1))
    if name in ("cls_token", "mask_token"):
        return tensor.normal_(std=TOKEN_STD, generator=generator)
    if name.endswith("bias"):
        return tensor.zero_()
    if name == "head.weight":
        return nn.init.trunc_normal_(tensor, std=HEAD_STD, generator=generator)
    if tensor.ndim == 1:
        return tensor.fill_(1.0)
    nn.init.xavier_uniform_(tensor.view(shape[0], -1), generator=generator)
    return tensor


@torch.no_grad()
def initialize_mae_weights(model: nn.Module, target: str, generator: torch.Generator | None = None) -> nn.Module:
    """Initializes every parameter of a stock model as in the original code, in place.

    The initialization of transformers leaves the position embeddings of ViTMAE (encoder and decoder) at zero. They are
    not trained, so a model trained from that state has no position information.

    Args:
        model: a stock model with the parameters of `layouts.mae.TARGETS[target]`.
        target: `pretraining`, `cls`, `mean` or `backbone`.
    """
    state, unknown = to_original_state_dict(model.state_dict(), TARGETS[target])
    if unknown:
        raise ValueError(f"not a {target} model of this architecture: unknown parameters {', '.join(unknown[:5])}")
    # The fused qkv projection is initialized as one matrix, as in the original code.
    state = {name: initial_value(name, tuple(tensor.shape), generator) for name, tensor in state.items()}
    model.load_state_dict(to_transformers_state_dict(state, TARGETS[target]).tensors)
    return model
