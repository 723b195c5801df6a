"""State-dict keys of facebookresearch/mae (and timm's ViT) and of the stock transformers models.

Sources: `models_mae.py` and `models_vit.py` of facebookresearch/mae, and the modules of transformers' ViT, BEiT and
ViTMAE. `{i}` is a block number, `{p}` is `weight` or `bias`. Only the fused `qkv` changes its shape: transformers has
three projections.
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
    *((f"decoder_blocks.{mae_key}", f"decoder.decoder_layers.{hf_key}") for mae_key, hf_key in BLOCK_KEYS),
    ("decoder_norm.{p}", "decoder.decoder_norm.{p}"),
    ("decoder_pred.{p}", "decoder.decoder_pred.{p}"),
)


def _encoder_keys(prefix: str) -> tuple[tuple[str, str], ...]:
    keys = EMBEDDING_KEYS + tuple((f"blocks.{mae_key}", f"layers.{hf_key}") for mae_key, hf_key in BLOCK_KEYS)
    return tuple((mae_key, prefix + hf_key) for mae_key, hf_key in keys)


# Target -> (original key, transformers key in memory).
KEY_MAPPINGS = {
    "pretraining": _encoder_keys("vit.") + (("norm.{p}", "vit.layernorm.{p}"),) + DECODER_KEYS,
    "cls": _encoder_keys("vit.") + (("norm.{p}", "vit.layernorm.{p}"), ("head.{p}", "classifier.{p}")),
    "mean": _encoder_keys("beit.") + (("fc_norm.{p}", "beit.pooler.layernorm.{p}"), ("head.{p}", "classifier.{p}")),
    "backbone": _encoder_keys("") + (("norm.{p}", "layernorm.{p}"),),
}

# Target -> stock class of transformers.
MODEL_CLASSES = {
    "pretraining": "ViTMAEForPreTraining",
    "cls": "ViTForImageClassification",
    "mean": "BeitForImageClassification",
    "backbone": "ViTModel",
}

# Target -> (original key, reason why the target does not use it); the first matching pattern counts.
UNUSED_REASONS = {
    "pretraining": (
        ("fc_norm.{p}", "pooling norm of a classifier; not used in pre-training"),
        ("head.{p}", "classification head; not used in pre-training"),
    ),
    "cls": (
        ("fc_norm.{p}", "norm of mean pooling; the class token is normalized by `norm`"),
        *((key, "decoder: used in pre-training only") for key, _ in DECODER_KEYS),
    ),
    "mean": (
        ("norm.{p}", "mean pooling normalizes the pooled patches (fc_norm) instead, as in the original code"),
        *((key, "decoder: used in pre-training only") for key, _ in DECODER_KEYS),
    ),
    "backbone": (
        ("fc_norm.{p}", "pooling norm of a classifier; not part of the backbone"),
        ("head.{p}", "classification head; not part of the backbone"),
        *((key, "decoder: used in pre-training only") for key, _ in DECODER_KEYS),
    ),
}
KEY_BIAS_NOTE = (
    "the key bias (middle third) is omitted: BEiT has no key bias, and it adds the same number to every score of a "
    "query, which the softmax cancels"
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
    """Returns the values of `{i}`, `{p}` and `{qkv}` if `key` matches `pattern`, else None."""
    match = _compile_pattern(pattern).fullmatch(key)
    return match.groupdict() if match else None


def is_mae_key(key: str) -> bool:
    """Whether a key is a parameter of the original code."""
    patterns = [mae_key for table in KEY_MAPPINGS.values() for mae_key, _ in table] + ["fc_norm.{p}", "head.{p}"]
    return any(match_key(pattern, key) is not None for pattern in patterns)


def expected_ndim(key: str) -> int | None:
    """Returns the number of dimensions of a parameter of the original code, or None for other keys."""
    if not is_mae_key(key):
        return None
    if key == "patch_embed.proj.weight":
        return 4
    if key in ("cls_token", "mask_token", "pos_embed", "decoder_pos_embed"):
        return 3
    return 1 if key.endswith(".bias") or "norm" in key.rsplit(".", 2)[-2] else 2


@dataclass
class MappedStateDict:
    """A state dict with transformers keys, and the origin of each tensor."""

    tensors: dict[str, torch.Tensor]  # transformers key -> tensor
    mapping: list[dict[str, Any]]  # {"source", "target": [keys], "note"?} for every used tensor
    unused: list[dict[str, Any]]  # {"source", "reason"} for every unused tensor


def to_transformers_state_dict(state: dict[str, torch.Tensor], target: str) -> MappedStateDict:
    """Renames parameters for a target; the tensors are views, not copies.

    Args:
        state: parameters under their original names; `qkv.weight` is (3 * width, width), `qkv.bias` is (3 * width,).
        target: `pretraining`, `cls`, `mean` or `backbone`.
    """
    mapped_state = MappedStateDict({}, [], [])
    for name, tensor in state.items():
        for mae_key, hf_key in KEY_MAPPINGS[target]:
            if (fields := match_key(mae_key, name)) is None:
                continue
            entry = {"source": name, "target": [hf_key.format(**fields)]} if "{qkv}" not in hf_key else None
            if entry:
                mapped_state.tensors[entry["target"][0]] = tensor
            else:
                parts = dict(zip(QKV, tensor.chunk(3)))
                entry = {"source": name}
                if target == "mean" and fields["p"] == "bias":
                    del parts["k_proj"]
                    entry["note"] = KEY_BIAS_NOTE
                renamed = {hf_key.format(qkv=qkv, **fields): part for qkv, part in parts.items()}
                entry["target"] = list(renamed)
                mapped_state.tensors.update(renamed)
            mapped_state.mapping.append(entry)
            break
        else:
            reasons = (reason for mae_key, reason in UNUSED_REASONS[target] if match_key(mae_key, name) is not None)
            mapped_state.unused.append({"source": name, "reason": next(reasons, "not a parameter of the MAE ViT")})
    return mapped_state


def to_mae_state_dict(state: dict[str, torch.Tensor], target: str) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Renames transformers parameters (keys in memory) to their original names; also returns the unknown keys.

    The three projections are fused; the missing key bias of BEiT becomes zeros.
    """
    mae_state: dict[str, torch.Tensor] = {}
    unknown: list[str] = []
    for name, tensor in state.items():
        for mae_key, hf_key in KEY_MAPPINGS[target]:
            if (fields := match_key(hf_key, name)) is None:
                continue
            key = mae_key.format(**fields)
            if "qkv" not in fields:
                mae_state[key] = tensor
            elif key not in mae_state:
                parts = [state.get(hf_key.format(**(fields | {"qkv": qkv}))) for qkv in QKV]
                mae_state[key] = torch.cat([torch.zeros_like(tensor) if part is None else part for part in parts])
            break
        else:
            unknown.append(name)
    return mae_state, unknown
