"""Renames parameters between a checkpoint and a stock class of transformers, as a `checkpoint.Target` describes."""

from dataclasses import dataclass
from typing import Any

import torch

from .checkpoint import State, Target, match_key, split_pattern
from .facts import FactCode, fact


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
            patterns = split_pattern(hf_key)
            parts = tensor.chunk(len(patterns)) if len(patterns) > 1 else [tensor]
            renamed = {pattern.format(**fields): part for pattern, part in zip(patterns, parts) if pattern}
            mapped_state.tensors.update(renamed)
            note = {} if all(patterns) else {"note": FactCode.KEY_BIAS_OMITTED}
            mapped_state.mapping.append({"source": name, **note, "target": list(renamed)})
            break
        else:
            codes = (code for pattern, code in target.unused if match_key(pattern, name) is not None)
            code = next(codes, None)
            reason = fact(code) if code else fact(FactCode.NOT_A_PARAMETER, class_name=target.class_name)
            mapped_state.unused.append({"source": name, "reason": reason})
    return mapped_state


def to_original_state_dict(state: State, target: Target) -> tuple[State, list[str]]:
    """Renames transformers parameters (keys in memory) to their original names; also returns the unknown keys.

    Fused parameters are concatenated; a missing part, such as the key bias of BEiT, becomes zeros.
    """
    original: State = {}
    unknown: list[str] = []
    for name, tensor in state.items():
        for original_key, hf_key in target.keys:
            patterns = split_pattern(hf_key)
            fields = next((match for p in patterns if p and (match := match_key(p, name)) is not None), None)
            if fields is None:
                continue
            key = original_key.format(**fields)
            if len(patterns) == 1:
                original[key] = tensor
            elif key not in original:
                parts = [state.get(pattern.format(**fields)) for pattern in patterns]
                original[key] = torch.cat([torch.zeros_like(tensor) if part is None else part for part in parts])
            break
        else:
            unknown.append(name)
    return original, unknown
