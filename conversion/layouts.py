"""Finds the parameters of a ViT in a loaded checkpoint and renames them to their original names.

Training programs nest state dicts (`{model}`, `{state_dict}`, `{module}`...), add the names of wrappers to the keys
(DDP, FSDP, torch.compile, activation checkpointing), store the ViT as a part of a larger module (a prefix), and save
averaged weights in addition to the plain ones. MMPretrain has its own keys.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from .errors import ConversionError
from .key_mapping import is_mae_key
from .messages import ConversionMessage

WEIGHTS_CHOICES = ("plain", "ema")  # choices of `--weights`
PATCH_EMBED_KEY = "patch_embed.proj.weight"  # identifies a ViT
MAX_NESTING = 6  # depth of nested dicts that are searched
WRAPPER_PREFIXES = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
EMA_WORDS = {"ema", "teacher", "momentum", "averaged", "swa", "shadow", "target"}  # in names of averaged weights
TEACHER_WORDS = {"teacher", "momentum"}  # in names of the averaged weights of DINO, iBOT and MoCo
LORA_PATTERN = r"lora_[AB]\b|lora_(down|up)\b"

# Unsupported architectures: (pattern of a key that only they have, name).
UNSUPPORTED_LAYOUTS = (
    (r"attn\.(q_bias|v_bias)$", "an MAE-pytorch or BEiT model (separate q_bias and v_bias)"),
    (r"relative_position_(bias_table|index)$", "a BEiT or Swin model (relative position biases)"),
    (r"\.ls[12]\.gamma$|\.gamma_[12]$|lambda_[12]$", "a ViT with layer scale (DINOv2, CaiT, BEiT)"),
    (r"register_tokens$|reg_token$", "a ViT with register tokens (DINOv2)"),
    (r"dist_token$", "a distilled DeiT"),
    (r"(^|\.)norm_pre\.|attn\.[qk]_norm\.", "a ViT with additional norms"),
    (r"mlp\.w12\.|mlp\.fc1_g\.", "a ViT with a gated MLP (SwiGLU)"),
    (r"(^|\.)layer[1-4]\.\d+\.conv[12]\.weight$", "a ResNet"),
    (r"(^|\.)stages\.\d+\.", "a convolutional or hierarchical network (ConvNeXt, Swin)"),
    (r"(^|\.)visual\.(transformer|conv1)", "a CLIP model"),
)

# Keys of MMPretrain that differ: (pattern, original key).
MMPRETRAIN_KEY_MAPPING = (
    (r"patch_embed\.projection\.", "patch_embed.proj."),
    (r"(^|\.)neck\.decoder_blocks\.", r"\1decoder_blocks."),
    (r"(^|\.)neck\.ln1\.", r"\1decoder_norm."),
    (r"(^|\.)neck\.", r"\1"),
    (r"(^|\.)backbone\.", r"\1"),
    (r"(^|\.)layers\.(\d+)\.(?=ln|attn|ffn|gamma)", r"\1blocks.\2."),
    (r"(blocks\.\d+)\.ln([12])\.", r"\1.norm\2."),
    (r"(blocks\.\d+)\.ffn\.layers\.0\.0\.", r"\1.mlp.fc1."),
    (r"(blocks\.\d+)\.ffn\.layers\.1\.", r"\1.mlp.fc2."),
    (r"(^|\.)ln1\.", r"\1norm."),
    (r"(^|\.)ln2\.", r"\1fc_norm."),
    (r"(^|\.)head\.(layers\.head|fc)\.", r"\1head."),
)


@dataclass
class ViTStateDict:
    """A ViT in a loaded checkpoint."""

    location: str  # path of keys and prefix, e.g. `state_dict: model.`; empty at the top level
    state: dict[str, torch.Tensor]
    unused: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_self_distilled(self) -> bool:
        """Whether the name indicates teacher weights of a self-distillation."""
        return bool(TEACHER_WORDS & _split_words(self.location))

    @property
    def is_averaged(self) -> bool:
        """Whether the name indicates averaged weights."""
        return bool(EMA_WORDS & _split_words(self.location))


def _split_words(location: str) -> set[str]:
    return {word for word in re.split(r"[^a-z0-9]+", location.lower()) if word}


def find_vit_state_dict(content: Any, source: str, weights: str | None = None) -> ViTStateDict:
    """Finds the ViT in a loaded checkpoint.

    Args:
        content: the object in the file.
        weights: `plain` or `ema`; None: the teacher's weights of a self-distillation, else the plain weights, else
            the averaged weights. Weights that are not selected are noted.

    Raises:
        ConversionError: If the checkpoint contains no ViT, or several that cannot be distinguished.
    """
    if not isinstance(content, Mapping):
        raise ConversionError(ConversionMessage.NOT_A_STATE_DICT, source=source, type=type(content).__name__)
    states = list(_iter_state_dicts(content))
    if not states:
        keys = [str(key) for key in content]
        raise ConversionError(ConversionMessage.NO_TENSORS, source=source, keys=keys[:6] or ["(none)"])
    candidates = [vit for location, state in states for vit in _find_vits(location, state, source)]
    if not candidates:
        _raise_vit_not_found(states, source)
    vit = _select_vit(candidates, source, weights)
    if not is_beit(vit.state):
        check_supported_layout(vit.state, source)
    return vit


def is_beit(state: Mapping[str, Any]) -> bool:
    """Whether a state dict has the keys of BEiT or data2vec, which `conversion.beit` reads."""
    has_bias_table = any(name.endswith("relative_position_bias_table") for name in state)
    return has_bias_table and "cls_token" in state and "blocks.0.attn.q_bias" in state


def _iter_state_dicts(content: Mapping[Any, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields every dict that contains named tensors, with the path of keys to it."""
    if any(isinstance(value, torch.Tensor) and isinstance(name, str) for name, value in content.items()):
        yield ".".join(path), {str(name): value for name, value in content.items()}
    if len(path) < MAX_NESTING:
        for key, value in content.items():
            if isinstance(value, Mapping):
                yield from _iter_state_dicts(value, (*path, str(key)))


def _find_vits(location: str, state: dict[str, Any], source: str) -> list[ViTStateDict]:
    """Finds the ViTs of a state dict: one for each prefix of the patch embedding."""
    not_tensors = [
        {"source": name, "reason": f"not a tensor ({type(value).__name__})"}
        for name, value in state.items()
        if not isinstance(value, (torch.Tensor, Mapping))
    ]
    names, notes = _normalize_keys([name for name, value in state.items() if isinstance(value, torch.Tensor)], source)
    prefixes = sorted(
        {new.removesuffix(PATCH_EMBED_KEY) for new in names.values() if re.search(rf"(^|\.){PATCH_EMBED_KEY}$", new)}
    )
    vits = []
    for prefix in prefixes:
        vit = ViTStateDict(
            f"{location}: {prefix}" if location and prefix else location or prefix, {}, list(not_tensors), list(notes)
        )
        for old, new in names.items():
            inside = new.startswith(prefix)
            in_other = any(new.startswith(other) for other in prefixes if other != prefix and len(other) > len(prefix))
            name = new.removeprefix(prefix) if inside else new
            if in_other or not (inside or (len(prefixes) == 1 and is_mae_key(name))):
                vit.unused.append({"source": old, "reason": f"outside the module '{prefix.rstrip('.')}'"})
                continue
            if name in vit.state:
                raise ConversionError(ConversionMessage.PREFIX_AMBIGUOUS, source=source, prefix=prefix)
            vit.state[name] = state[old]
        if prefix:
            vit.notes.append(f"the prefix '{prefix}' was removed from the keys")
        vits.append(vit)
    return vits


def _normalize_keys(names: list[str], source: str) -> tuple[dict[str, str], list[str]]:
    """Removes wrapper prefixes from keys and renames MMPretrain keys; returns old key -> new key, and notes."""
    new_keys = {name: ".".join(part for part in name.split(".") if part not in WRAPPER_PREFIXES) for name in names}
    wrappers = sorted({part for name in names for part in name.split(".")} & WRAPPER_PREFIXES)
    notes = [f"the names of wrappers were removed from the keys ({', '.join(wrappers)})"] if wrappers else []
    if any(name.endswith("patch_embed.projection.weight") for name in new_keys.values()):
        new_keys = {old: _mmpretrain_to_mae_key(name) for old, name in new_keys.items()}
        notes.append("the keys of MMPretrain were renamed")
    if len(set(new_keys.values())) < len(new_keys):
        raise ConversionError(ConversionMessage.WRAPPER_AMBIGUOUS, source=source, wrappers=wrappers)
    return new_keys, notes


def _mmpretrain_to_mae_key(name: str) -> str:
    for pattern, mae_key in MMPRETRAIN_KEY_MAPPING:
        name = re.sub(pattern, mae_key, name)
    return name


def _raise_vit_not_found(states: list[tuple[str, dict[str, Any]]], source: str) -> None:
    for _, state in states:
        check_supported_layout(state, source)
    location, state = max(states, key=lambda pair: len(pair[1]))
    attributes: dict[str, Any] = {"source": source, "missing_key": PATCH_EMBED_KEY, "keys": list(state)[:4]}
    if location:
        raise ConversionError(ConversionMessage.NOT_A_VIT_BELOW, location=location, **attributes)
    raise ConversionError(ConversionMessage.NOT_A_VIT, **attributes)


def _select_vit(candidates: list[ViTStateDict], source: str, weights: str | None) -> ViTStateDict:
    """Selects a ViT and notes the others."""
    averaged = [vit for vit in candidates if vit.is_averaged]
    plain = [vit for vit in candidates if not vit.is_averaged]
    if weights == "ema" and not averaged:
        raise ConversionError(ConversionMessage.NO_AVERAGED_WEIGHTS, source=source)
    if weights == "plain" and not plain:
        raise ConversionError(ConversionMessage.ONLY_AVERAGED_WEIGHTS, source=source, location=averaged[0].location)
    distilled = [vit for vit in averaged if vit.is_self_distilled]
    group = {"ema": averaged, "plain": plain, None: distilled or plain or averaged}[weights]
    if len(group) > 1:
        locations = [vit.location or "(top level)" for vit in group]
        raise ConversionError(ConversionMessage.SEVERAL_VITS, source=source, count=len(group), locations=locations)
    selected = group[0]
    if selected.is_averaged:
        selected.notes.append(f"these are the averaged weights ({selected.location})")
    for other in candidates:
        if other is not selected:
            kind, flag = ("averaged", "ema") if other.is_averaged else ("plain", "plain")
            selected.notes.append(
                f"the file also contains {kind} weights ({other.location}); pass --weights {flag} to convert them"
            )
            reason = f"{kind} weights; pass --weights {flag} to convert them"
            selected.unused.append({"source": other.location, "reason": reason})
    return selected


def check_supported_layout(state: Mapping[str, Any], source: str) -> None:
    """Raises ConversionError for the keys of an unsupported architecture."""
    if key := _find_key(LORA_PATTERN, state):
        raise ConversionError(ConversionMessage.LORA_ADAPTER, source=source, key=key)
    for pattern, layout in UNSUPPORTED_LAYOUTS:
        if key := _find_key(pattern, state):
            raise ConversionError(ConversionMessage.UNSUPPORTED_LAYOUT, source=source, layout=layout, key=key)


def _find_key(pattern: str, state: Mapping[str, Any]) -> str | None:
    return next((key for key in state if re.search(pattern, key)), None)
