"""Eager attention with fewer passes over the attention scores, for training on a CPU."""

import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel

PLAIN_ATTENTION = "hf_mae_plain"  # name for `set_attn_implementation`
SUPPORTED_MODEL_TYPES = ("vit", "vit_mae", "beit")  # their own eager attention has the same arithmetic


def register_plain_attention(model: PreTrainedModel) -> str:
    """Returns the name for `set_attn_implementation`: `PLAIN_ATTENTION` for supported models, otherwise `eager`."""
    if model.config.model_type not in SUPPORTED_MODEL_TYPES:
        return "eager"
    AttentionInterface.register(PLAIN_ATTENTION, plain_attention)
    return PLAIN_ATTENTION


def plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Computes attention as timm's ViT (used by the original MAE code) does, with the softmax in the type of the
    scores.

    In float32 the result equals transformers' eager attention bit for bit: a scale that is a power of two (1/8 for
    heads of 64 channels) is applied to the queries, which are fewer than the scores. In bfloat16, transformers copies
    the scores to float32 and back; torch's softmax computes in float32 in any case, so at most the last digit changes.

    Args:
        module: the attention layer; dropout is active if it is in training mode.
        query, key, value: (batch, heads, tokens, channels per head).
        attention_mask: added to the scores.
        scaling: of the scores; None: 1 / sqrt(channels per head).

    Returns:
        The output (batch, tokens, heads, channels), and the attention weights (batch, heads, tokens, tokens).
    """
    scaling = query.size(-1) ** -0.5 if scaling is None else scaling
    if math.frexp(scaling)[0] == 0.5:
        scores = (query * scaling) @ key.transpose(2, 3)
    else:
        scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = F.dropout(scores.softmax(-1).to(query.dtype), dropout, module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights
