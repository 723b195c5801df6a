"""Finding a ViT's parameters in a loaded object, whatever the object is wrapped in, under the reference's names.

Training programs nest state dicts in each other (`{model}`, `{state_dict}`, `{module}`...), put wrappers' names into
the parameters' (DDP, FSDP, compile, activation checkpointing), hold the ViT as a part of a larger module (a prefix),
keep averaged weights beside the plain ones, and MMPretrain has names of its own.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from .errors import ConversionError
from .key_mapping import is_mae_key

WEIGHTS_CHOICES = ("plain", "ema")  # of `--weights`
PATCH_EMBED_KEY = "patch_embed.proj.weight"  # the parameter by which a ViT is recognised
MAX_NESTING = 6  # of dicts in dicts that are looked into
WRAPPER_PREFIXES = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
EMA_WORDS = {"ema", "teacher", "momentum", "averaged", "swa", "shadow", "target"}  # words in names of averaged weights
TEACHER_WORDS = {"teacher", "momentum"}  # averaged weights that their method hands on: DINO, iBOT, MoCo

# Layouts that are not this architecture, by a name that only they have: (pattern, what it is).
UNSUPPORTED_LAYOUTS = (
    (
        r"lora_[AB]\b|lora_(down|up)\b",
        "a LoRA adapter, which holds no full weights: merge it into its base model first",
    ),
    (r"attn\.(q_bias|v_bias)$", "MAE-pytorch or BEiT (separate q_bias and v_bias), not facebookresearch/mae"),
    (r"relative_position_(bias_table|index)$", "BEiT or Swin (relative position biases), not facebookresearch/mae"),
    (
        r"\.ls[12]\.gamma$|\.gamma_[12]$|lambda_[12]$",
        "a ViT with layer scale (DINOv2, CaiT, BEiT), not facebookresearch/mae",
    ),
    (r"register_tokens$|reg_token$", "a ViT with register tokens (DINOv2), not facebookresearch/mae"),
    (r"dist_token$", "a distilled DeiT, not facebookresearch/mae"),
    (r"(^|\.)norm_pre\.|attn\.[qk]_norm\.", "a ViT with extra norms, not facebookresearch/mae"),
    (r"mlp\.w12\.|mlp\.fc1_g\.", "a ViT with a gated MLP (SwiGLU), not facebookresearch/mae"),
    (r"(^|\.)layer[1-4]\.\d+\.conv[12]\.weight$", "a ResNet, not a Vision Transformer"),
    (r"(^|\.)stages\.\d+\.", "a convolutional or hierarchical network (ConvNeXt, Swin), not a plain ViT"),
    (r"(^|\.)visual\.(transformer|conv1)", "a CLIP model, not facebookresearch/mae"),
)

# MMPretrain's names, as far as they differ: (pattern, the reference's).
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
    """A ViT in a loaded object."""

    location: str  # keys and prefix that lead to it, as `state_dict: model.`; empty at the top
    state: dict[str, torch.Tensor]
    unused: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_self_distilled(self) -> bool:
        """Whether its name says that these are what a self-distillation hands on."""
        return bool(TEACHER_WORDS & _split_words(self.location))

    @property
    def is_averaged(self) -> bool:
        """Whether its name says that these are averaged weights."""
        return bool(EMA_WORDS & _split_words(self.location))


def _split_words(location: str) -> set[str]:
    return {word for word in re.split(r"[^a-z0-9]+", location.lower()) if word}


def find_vit_state_dict(content: Any, source: str, weights: str | None = None) -> ViTStateDict:
    """The ViT of a loaded checkpoint.

    Args:
        content: what the file held.
        weights: `plain` or `ema`, where both may be there; None: the plain ones, or the only ones, or those that
            self-distillation hands on (the teacher's); what else there is, is said.

    Raises:
        ConversionError: there is none, or it cannot be known which is meant; it names what is there.
    """
    if not isinstance(content, Mapping):
        raise ConversionError(f"{source} holds a {type(content).__name__}, not the dict of a checkpoint or state dict.")
    states = list(_iter_state_dicts(content))
    if not states:
        keys = [str(key) for key in content]
        raise ConversionError(f"{source} holds no tensors: its keys are {', '.join(keys[:6]) or '(none)'}.")
    found = [vit for where, state in states for vit in _find_vits(where, state, source)]
    if not found:
        _raise_vit_not_found(states, source)
    chosen = _select_vit(found, source, weights)
    if not is_beit(chosen.state):
        check_supported_layout(chosen.state, source)
    return chosen


def is_beit(state: Mapping[str, Any]) -> bool:
    """Whether a state dict is of BEiT or data2vec, which `conversion.beit` reads, by names that only they have."""
    tables = any(name.endswith("relative_position_bias_table") for name in state)
    return tables and "cls_token" in state and "blocks.0.attn.q_bias" in state


def _iter_state_dicts(content: Mapping[Any, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every dict that holds tensors by name, with the keys that lead to it."""
    if any(isinstance(value, torch.Tensor) and isinstance(name, str) for name, value in content.items()):
        yield ".".join(path), {str(name): value for name, value in content.items()}
    if len(path) < MAX_NESTING:
        for key, value in content.items():
            if isinstance(value, Mapping):
                yield from _iter_state_dicts(value, (*path, str(key)))


def _find_vits(location: str, state: dict[str, Any], source: str) -> list[ViTStateDict]:
    """The ViTs of a state dict: one for each prefix of the patch embedding."""
    odd = [
        {"source": name, "reason": f"no tensor ({type(value).__name__})"}
        for name, value in state.items()
        if not isinstance(value, (torch.Tensor, Mapping))
    ]
    names, notes = _normalize_keys([name for name, value in state.items() if isinstance(value, torch.Tensor)], source)
    prefixes = sorted(
        {new.removesuffix(PATCH_EMBED_KEY) for new in names.values() if re.search(rf"(^|\.){PATCH_EMBED_KEY}$", new)}
    )
    found = []
    for prefix in prefixes:
        vit = ViTStateDict(
            f"{location}: {prefix}" if location and prefix else location or prefix, {}, list(odd), list(notes)
        )
        for old, new in names.items():
            inside = new.startswith(prefix)
            others = any(new.startswith(other) for other in prefixes if other != prefix and len(other) > len(prefix))
            name = new.removeprefix(prefix) if inside else new
            if others or not (inside or (len(prefixes) == 1 and is_mae_key(name))):
                vit.unused.append({"source": old, "reason": f"outside the part '{prefix.rstrip('.')}'"})
                continue
            if name in vit.state:
                raise ConversionError(f"{source} holds some parameters both with and without the prefix '{prefix}'.")
            vit.state[name] = state[old]
        if prefix:
            vit.notes.append(f"the prefix '{prefix}' was taken off the names")
        found.append(vit)
    return found


def _normalize_keys(names: list[str], source: str) -> tuple[dict[str, str], list[str]]:
    """Names without what wrappers put into them, and those of MMPretrain under the reference's."""
    tidy = {name: ".".join(part for part in name.split(".") if part not in WRAPPER_PREFIXES) for name in names}
    wrappers = sorted({part for name in names for part in name.split(".")} & WRAPPER_PREFIXES)
    notes = [f"wrappers' names were taken out of the parameters' ({', '.join(wrappers)})"] if wrappers else []
    if any(name.endswith("patch_embed.projection.weight") for name in tidy.values()):
        tidy = {old: _mmpretrain_to_mae_key(name) for old, name in tidy.items()}
        notes.append("the names are MMPretrain's")
    if len(set(tidy.values())) < len(tidy):
        raise ConversionError(f"{source} holds some parameters twice, with and without {', '.join(wrappers)}.")
    return tidy, notes


def _mmpretrain_to_mae_key(name: str) -> str:
    for pattern, ours in MMPRETRAIN_KEY_MAPPING:
        name = re.sub(pattern, ours, name)
    return name


def _raise_vit_not_found(states: list[tuple[str, dict[str, Any]]], source: str) -> None:
    for _, state in states:
        check_supported_layout(state, source)
    where, state = max(states, key=lambda pair: len(pair[1]))
    names = ", ".join(list(state)[:4])
    inside = f" under {where}" if where else ""
    raise ConversionError(f"{source} is no ViT MAE: it has no {PATCH_EMBED_KEY}; its first names{inside} are {names}.")


def _select_vit(candidates: list[ViTStateDict], source: str, weights: str | None) -> ViTStateDict:
    """The one that is meant, with a word on what else there is."""
    averaged = [vit for vit in candidates if vit.is_averaged]
    plain = [vit for vit in candidates if not vit.is_averaged]
    if weights == "ema" and not averaged:
        raise ConversionError(f"{source} holds no averaged weights: leave --weights ema out.")
    if weights == "plain" and not plain:
        raise ConversionError(f"{source} holds averaged weights alone ({averaged[0].location}): leave --weights out.")
    distilled = [vit for vit in averaged if vit.is_self_distilled]
    group = {"ema": averaged, "plain": plain, None: distilled or plain or averaged}[weights]
    if len(group) > 1:
        names = ", ".join(vit.location or "(the top)" for vit in group)
        raise ConversionError(
            f"{source} holds {len(group)} ViTs ({names}), and nothing says which is meant: save the one alone."
        )
    chosen = group[0]
    if chosen.is_averaged:
        chosen.notes.append(f"these are the averaged weights ({chosen.location})")
    for other in candidates:
        if other is not chosen:
            kind, flag = ("averaged", "ema") if other.is_averaged else ("plain", "plain")
            said = f"it holds {kind} weights too ({other.location}): --weights {flag} takes them"
            chosen.notes.append(said)
            chosen.unused.append({"source": other.location, "reason": f"{kind} weights: --weights {flag} takes them"})
    return chosen


def check_supported_layout(state: Mapping[str, Any], source: str) -> None:
    """Refuses, by name, layouts that are not this architecture."""
    for pattern, what in UNSUPPORTED_LAYOUTS:
        if found := next((name for name in state if re.search(pattern, name)), None):
            raise ConversionError(f"{source} is {what} (it has {found}).")
