"""Renames parameters between a checkpoint and a stock class of transformers, as a `checkpoint.Target` describes."""

from dataclasses import dataclass
from typing import Any

import torch

from .checkpoint import QKV, State, Target, match_key

KEY_BIAS_NOTE = (
    "the key bias (middle third) is omitted: BEiT has no key bias, and it adds the same number to every score of a "
    "query, which the softmax cancels"
)


@dataclass
class MappedStateDict:
    """A state dict with transformers keys, and the origin of each tensor."""

    tensors: State  # transformers key -> tensor
    mapping: list[dict[str, Any]]  # {"source", "target": [keys], "note"?} for every used tensor
    unused: list[dict[str, Any]]  # {"source", "reason"} for every unused tensor


def to_transformers_state_dict(state: State, target: Target) -> MappedStateDict:
    """Renames parameters for a target; the tensors are views, not copies.

    Args:
        state: parameters under their original names; `qkv.weight` is (3 * width, width), `qkv.bias` is (3 * width,).
    """
    mapped_state = MappedStateDict({}, [], [])
    for name, tensor in state.items():
        for original_key, hf_key in target.keys:
            if (fields := match_key(original_key, name)) is None:
                continue
            entry: dict[str, Any] = {"source": name}
            if "{qkv}" not in hf_key:
                renamed = {hf_key.format(**fields): tensor}
            else:
                parts = dict(zip(QKV, tensor.chunk(3)))
                if fields.get("p") == "bias" and not target.has_key_bias:
                    del parts["k_proj"]
                    entry["note"] = KEY_BIAS_NOTE
                renamed = {hf_key.format(qkv=qkv, **fields): part for qkv, part in parts.items()}
            mapped_state.tensors.update(renamed)
            mapped_state.mapping.append(entry | {"target": list(renamed)})
            break
        else:
            reasons = (reason for pattern, reason in target.unused if match_key(pattern, name) is not None)
            reason = next(reasons, f"not a parameter of {target.class_name}")
            mapped_state.unused.append({"source": name, "reason": reason})
    return mapped_state


def to_original_state_dict(state: State, target: Target) -> tuple[State, list[str]]:
    """Renames transformers parameters (keys in memory) to their original names; also returns the unknown keys.

    The three projections are fused; the missing key bias of BEiT becomes zeros.
    """
    original: State = {}
    unknown: list[str] = []
    for name, tensor in state.items():
        for original_key, hf_key in target.keys:
            if (fields := match_key(hf_key, name)) is None:
                continue
            key = original_key.format(**fields)
            if "qkv" not in fields:
                original[key] = tensor
            elif key not in original:
                parts = [state.get(hf_key.format(**(fields | {"qkv": qkv}))) for qkv in QKV]
                original[key] = torch.cat([torch.zeros_like(tensor) if part is None else part for part in parts])
            break
        else:
            unknown.append(name)
    return original, unknown
