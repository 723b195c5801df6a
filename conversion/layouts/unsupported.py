"""Networks that no class of the conversion computes; they are rejected by their name."""

import re
from collections.abc import Callable, Collection
from typing import Any

from ..checkpoint import Layout
from .beit import has_relative_positions


def _has_key(pattern: str) -> Callable[[Collection[str], dict[str, Any]], bool]:
    """The condition that a key contains a regular expression; BEiT has a layout of its own."""
    return lambda keys, args: any(re.search(pattern, key) for key in keys) and not has_relative_positions(keys, args)


_ANOTHER_NETWORK = "it is not a ViT of facebookresearch/mae"
_ENTRIES = (
    # name, title, keys that only this family has, reason
    ("lora", "a LoRA adapter", r"lora_[AB]\b|lora_(down|up)\b", "merge it into its base model first"),
    (
        "transformers-file",
        "the weights file of a transformers model",
        r"(^|\.)embeddings\.patch_embeddings\.projection\.weight$",
        "its configuration is in config.json; pass the folder of both files",
    ),
    ("resnet", "a ResNet", r"(^|\.)layer[1-4]\.\d+\.conv[12]\.weight$", _ANOTHER_NETWORK),
    ("clip", "a CLIP model", r"(^|\.)visual\.(transformer|conv1)", _ANOTHER_NETWORK),
    (
        "hierarchical",
        "a convolutional or hierarchical network (ConvNeXt, Swin)",
        r"(^|\.)stages\.\d+\.|^layers\.\d+\.blocks\.",
        _ANOTHER_NETWORK,
    ),
    (
        "separate-biases",
        "an MAE-pytorch or BEiT model (separate q_bias and v_bias)",
        r"attn\.(q_bias|v_bias)$",
        "without relative positions it is not a BEiT of transformers",
    ),
    (
        "relative-positions",
        "a BEiT or Swin model (relative position biases)",
        r"relative_position_(bias_table|index)$",
        "it lacks other parameters of BEiT",
    ),
    (
        "layer-scale",
        "a ViT with layer scale (DINOv2, CaiT)",
        r"\.ls[12]\.gamma$|\.gamma_[12]$|lambda_[12]$",
        "transformers' ViT has none",
    ),
    ("registers", "a ViT with register tokens (DINOv2)", r"register_tokens$|reg_token$", "transformers' ViT has none"),
    ("distilled", "a distilled DeiT", r"dist_token$", "its second class token has no place in transformers' ViT"),
    (
        "more-norms",
        "a ViT with additional norms",
        r"(^|\.)norm_pre\.|attn\.[qk]_norm\.",
        "transformers' ViT has none of them",
    ),
    ("gated-mlp", "a ViT with a gated MLP (SwiGLU)", r"mlp\.w12\.|mlp\.fc1_g\.", "transformers' ViT has none"),
)
UNSUPPORTED = tuple(
    Layout(name, title, condition=_has_key(pattern), unsupported=reason) for name, title, pattern, reason in _ENTRIES
)
