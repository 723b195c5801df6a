"""Plain attention with as few passes over its scores as the reference's, for training on a CPU."""

import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel

PLAIN_ATTENTION = "hf_mae_plain"  # its name for `set_attn_implementation`
SUPPORTED_MODEL_TYPES = ("vit", "vit_mae", "beit")  # types of models whose own eager attention is this arithmetic


def register_plain_attention(model: PreTrainedModel) -> str:
    """What `set_attn_implementation` calls plain attention: this one where a model computes as it, else its own."""
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
    """Attention as timm's ViT computes it, which the reference trains: the softmax is of the type of the scores.

    In float32 it is, to the bit, transformers' eager attention: a scale that is a power of two (1/8 for heads of 64
    channels) is applied to the queries, which are fewer than the scores. In bfloat16 transformers copies the scores to
    float32 and back; torch's softmax computes in float32 in any case, so the copies change a last digit at most.

    Args:
        module: the attention layer; its `training` turns dropout on.
        query, key, value: (batch, heads, tokens, channels of a head).
        attention_mask: added to the scores.
        scaling: of the scores; None: 1 / sqrt(channels of a head).

    Returns:
        The mixed values (batch, tokens, heads, channels), and the probabilities (batch, heads, tokens, tokens).
    """
    scaling = query.size(-1) ** -0.5 if scaling is None else scaling
    if math.frexp(scaling)[0] == 0.5:
        scores = (query * scaling) @ key.transpose(2, 3)
    else:
        scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    probabilities = F.dropout(scores.softmax(-1).to(query.dtype), dropout, module.training)
    return (probabilities @ value).transpose(1, 2).contiguous(), probabilities
