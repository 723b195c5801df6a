"""The table of parameter names: the reference's (and timm's ViT) on the left, transformers' in memory on the right.

Sources: `models_mae.py` and `models_vit.py` of facebookresearch/mae, and the modules of transformers' ViT, BEiT and
ViTMAE. `{i}` is the number of a block, `{p}` is `weight` or `bias`. The one tensor that changes shape is the fused
`qkv`, which transformers holds as three projections.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

QKV = ("q_proj", "k_proj", "v_proj")

EMBEDDING_KEYS = (
    ("cls_token", "embeddings.cls_token"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("patch_embed.proj.{p}", "embeddings.patch_embeddings.projection.{p}"),
)
BLOCK_KEYS = (
    ("{i}.norm1.{p}", "{i}.layernorm_before.{p}"),
    ("{i}.attn.qkv.{p}", "{i}.attention.{qkv}.{p}"),
    ("{i}.attn.proj.{p}", "{i}.attention.o_proj.{p}"),
    ("{i}.norm2.{p}", "{i}.layernorm_after.{p}"),
    ("{i}.mlp.fc1.{p}", "{i}.mlp.fc1.{p}"),
    ("{i}.mlp.fc2.{p}", "{i}.mlp.fc2.{p}"),
)
DECODER_KEYS = (
    ("mask_token", "decoder.mask_token"),
    ("decoder_pos_embed", "decoder.decoder_pos_embed"),
    ("decoder_embed.{p}", "decoder.decoder_embed.{p}"),
    *((f"decoder_blocks.{ours}", f"decoder.decoder_layers.{theirs}") for ours, theirs in BLOCK_KEYS),
    ("decoder_norm.{p}", "decoder.decoder_norm.{p}"),
    ("decoder_pred.{p}", "decoder.decoder_pred.{p}"),
)


def _encoder_keys(prefix: str) -> tuple[tuple[str, str], ...]:
    names = EMBEDDING_KEYS + tuple((f"blocks.{ours}", f"layers.{theirs}") for ours, theirs in BLOCK_KEYS)
    return tuple((ours, prefix + theirs) for ours, theirs in names)


# One table for each kind of target.
KEY_MAPPINGS = {
    "pretraining": _encoder_keys("vit.") + (("norm.{p}", "vit.layernorm.{p}"),) + DECODER_KEYS,
    "cls": _encoder_keys("vit.") + (("norm.{p}", "vit.layernorm.{p}"), ("head.{p}", "classifier.{p}")),
    "mean": _encoder_keys("beit.") + (("fc_norm.{p}", "beit.pooler.layernorm.{p}"), ("head.{p}", "classifier.{p}")),
    "backbone": _encoder_keys("") + (("norm.{p}", "layernorm.{p}"),),
}

# The stock class of each.
MODEL_CLASSES = {
    "pretraining": "ViTMAEForPreTraining",
    "cls": "ViTForImageClassification",
    "mean": "BeitForImageClassification",
    "backbone": "ViTModel",
}

# Why a tensor of the source has no place in a target; the first pattern that matches gives the reason.
UNUSED_REASONS = {
    "pretraining": (
        ("fc_norm.{p}", "pooling norm of a classifier; pre-training has none"),
        ("head.{p}", "classification head; pre-training has none"),
    ),
    "cls": (
        ("fc_norm.{p}", "norm of mean pooling; the class token is normalised by `norm`"),
        *((ours, "decoder: used in pre-training only") for ours, _ in DECODER_KEYS),
    ),
    "mean": (
        ("norm.{p}", "mean pooling normalises the pooled patches (fc_norm) instead; the reference leaves it out too"),
        *((ours, "decoder: used in pre-training only") for ours, _ in DECODER_KEYS),
    ),
    "backbone": (
        ("fc_norm.{p}", "pooling norm of a classifier; not part of the backbone"),
        ("head.{p}", "classification head; not part of the backbone"),
        *((ours, "decoder: used in pre-training only") for ours, _ in DECODER_KEYS),
    ),
}
KEY_BIAS_NOTE = (
    "the key bias (middle third) is left out: BEiT has none, and it adds the same number to every score of a query, "
    "which the softmax cancels"
)


@cache
def _compile_pattern(pattern: str) -> re.Pattern[str]:
    regex = re.escape(pattern)
    for field, values in (
        ("i", r"(?P<i>\d+)"),
        ("p", r"(?P<p>weight|bias)"),
        ("qkv", "(?P<qkv>" + "|".join(QKV) + ")"),
    ):
        regex = regex.replace(re.escape("{" + field + "}"), values)
    return re.compile(regex)


def match_key(pattern: str, key: str) -> dict[str, str] | None:
    """The values of `{i}`, `{p}` and `{qkv}` when `key` is of the form `pattern`, else None."""
    found = _compile_pattern(pattern).fullmatch(key)
    return found.groupdict() if found else None


def is_mae_key(key: str) -> bool:
    """Whether any table knows this parameter of the reference."""
    known = [ours for table in KEY_MAPPINGS.values() for ours, _ in table] + ["fc_norm.{p}", "head.{p}"]
    return any(match_key(pattern, key) is not None for pattern in known)


def expected_ndim(key: str) -> int | None:
    """How many dimensions a parameter of the reference has; None: it is none of them."""
    if not is_mae_key(key):
        return None
    if key == "patch_embed.proj.weight":
        return 4
    if key in ("cls_token", "mask_token", "pos_embed", "decoder_pos_embed"):
        return 3
    return 1 if key.endswith(".bias") or "norm" in key.rsplit(".", 2)[-2] else 2


@dataclass
class MappedStateDict:
    """What became of the tensors of a source."""

    tensors: dict[str, torch.Tensor]  # by transformers' name
    mapping: list[dict[str, Any]]  # {"source", "target": [names], "note"?} for every tensor that is used
    unused: list[dict[str, Any]]  # {"source", "reason"} for every tensor that is not


def to_transformers_state_dict(state: dict[str, torch.Tensor], target: str) -> MappedStateDict:
    """Renames reference tensors for one of `TARGETS`; views, no copies.

    Args:
        state: parameters by the reference's names; `qkv.weight` is (3 * width, width), `qkv.bias` (3 * width,).
        target: `pretraining`, `cls`, `mean` or `backbone`.
    """
    mapped = MappedStateDict({}, [], [])
    for name, tensor in state.items():
        for ours, theirs in KEY_MAPPINGS[target]:
            if (fields := match_key(ours, name)) is None:
                continue
            entry = {"source": name, "target": [theirs.format(**fields)]} if "{qkv}" not in theirs else None
            if entry:
                mapped.tensors[entry["target"][0]] = tensor
            else:
                parts = dict(zip(QKV, tensor.chunk(3)))
                entry = {"source": name}
                if target == "mean" and fields["p"] == "bias":
                    del parts["k_proj"]
                    entry["note"] = KEY_BIAS_NOTE
                renamed = {theirs.format(qkv=qkv, **fields): part for qkv, part in parts.items()}
                entry["target"] = list(renamed)
                mapped.tensors.update(renamed)
            mapped.mapping.append(entry)
            break
        else:
            reasons = (why for ours, why in UNUSED_REASONS[target] if match_key(ours, name) is not None)
            mapped.unused.append({"source": name, "reason": next(reasons, "not a parameter of the MAE ViT")})
    return mapped


def to_mae_state_dict(state: dict[str, torch.Tensor], target: str) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The way back: reference names from transformers' names in memory, and the names that no table knows.

    The three projections are fused again; BEiT's missing key bias comes back as zeros.
    """
    reference: dict[str, torch.Tensor] = {}
    unknown: list[str] = []
    for name, tensor in state.items():
        for ours, theirs in KEY_MAPPINGS[target]:
            if (fields := match_key(theirs, name)) is None:
                continue
            key = ours.format(**fields)
            if "qkv" not in fields:
                reference[key] = tensor
            elif key not in reference:
                parts = [state.get(theirs.format(**(fields | {"qkv": qkv}))) for qkv in QKV]
                reference[key] = torch.cat([torch.zeros_like(tensor) if part is None else part for part in parts])
            break
        else:
            unknown.append(name)
    return reference, unknown
