"""Finds the parameters of a ViT in a loaded checkpoint, and its layout.

Training programs nest state dicts (`{model}`, `{state_dict}`, `{module}`...), add the names of wrappers to the keys
(DDP, FSDP, torch.compile, activation checkpointing), store the ViT as a part of a larger module (a prefix), and save
averaged weights in addition to the plain ones.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .checkpoint import Checkpoint, Layout, State
from .facts import Fact, FactCode, fact
from .layouts import LAYOUTS, supported_layouts
from .messages import ConversionError, ConversionMessage
from .metadata import find_args, metadata_from_args

WEIGHTS_CHOICES = ("plain", "ema")  # choices of `--weights`
MAX_LISTED_KEYS = 4  # in messages
MAX_NESTING = 6  # depth of nested dicts that are searched
WRAPPER_PREFIXES = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
EMA_WORDS = {"ema", "teacher", "momentum", "averaged", "swa", "shadow", "target"}  # in names of averaged weights
TEACHER_WORDS = {"teacher", "momentum"}  # in names of the averaged weights of DINO, iBOT and MoCo


@dataclass(frozen=True)
class _Candidate:
    """A state dict with an anchor of the layouts.

    Args:
        location: path of keys and prefix, e.g. `state_dict: model.`; empty at the top level.
        prefix: what precedes the anchor.
        prefixes: those of all anchors in the state dict.
        names: key in the file -> key without the names of wrappers.
        state: the state dict in the file.
        notes: on the names of wrappers.
    """

    location: str
    prefix: str
    prefixes: list[str]
    names: dict[str, str]
    state: dict[str, Any]
    notes: list[Fact]

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


def find_vit_state_dict(content: Any, source: str, weights: str | None = None) -> Checkpoint:
    """Finds the ViT in a loaded checkpoint, and renames its keys to the original ones.

    Args:
        content: the object in the file.
        weights: `plain` or `ema`; None: the teacher's weights of a self-distillation, else the plain weights, else
            the averaged weights. Weights that are not selected are noted.

    Raises:
        ConversionError: If the checkpoint contains no ViT of a supported layout, or several that cannot be
            distinguished.
    """
    if not isinstance(content, Mapping):
        raise ConversionError(ConversionMessage.NOT_A_STATE_DICT, source=source, type=type(content).__name__)
    states = list(_iter_state_dicts(content))
    if not states:
        keys = [str(key) for key in content]
        raise ConversionError(ConversionMessage.NO_TENSORS, source=source, keys=keys[:6] or ["(none)"])
    candidates = [candidate for location, state in states for candidate in _find_candidates(location, state, source)]
    args = find_args(content)
    if not candidates:
        location = states[0][0] if len(states) == 1 else ""
        raise _no_layout_error(source, location, [name for _, state in states for name in state], args)
    selected, unused, notes = _select_candidate(candidates, source, weights)
    checkpoint = _read_candidate(selected, unused, notes, args, source)
    if selected.location:
        checkpoint.contents = [str(key) for key in content if not isinstance(content[key], torch.Tensor)]
        entries = [selected.location, *(entry["source"] for entry in checkpoint.unused)]
        reported = {entry.split(":")[0].split(".")[0] for entry in entries}
        checkpoint.unused += [
            {"source": key, "reason": fact(FactCode.TRAINING_STATE)}
            for key in checkpoint.contents
            if key not in reported
        ]
    return checkpoint


def _iter_state_dicts(content: Mapping[Any, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields every dict that contains named tensors, with the path of keys to it."""
    if any(isinstance(value, torch.Tensor) and isinstance(name, str) for name, value in content.items()):
        yield ".".join(path), {str(name): value for name, value in content.items()}
    if len(path) < MAX_NESTING:
        for key, value in content.items():
            if isinstance(value, Mapping):
                yield from _iter_state_dicts(value, (*path, str(key)))


def _find_candidates(location: str, state: dict[str, Any], source: str) -> list[_Candidate]:
    """Finds the ViTs of a state dict: one for each prefix of an anchor of the layouts."""
    names, notes = _strip_wrappers([name for name, value in state.items() if isinstance(value, torch.Tensor)], source)
    anchors = (layout.find_prefix(name) for name in names.values() for layout in LAYOUTS.values())
    prefixes = sorted({prefix for prefix in anchors if prefix is not None})
    return [
        _Candidate(
            f"{location}: {prefix}" if location and prefix else location or prefix,
            prefix,
            prefixes,
            names,
            state,
            notes,
        )
        for prefix in prefixes
    ]


def _read_candidate(
    candidate: _Candidate, unused: list[dict[str, Any]], notes: list[Fact], args: dict[str, Any], source: str
) -> Checkpoint:
    """Determines the layout of a candidate, and renames its keys to the original ones."""
    names, prefix = candidate.names, candidate.prefix
    inside = {
        old: new.removeprefix(prefix) for old, new in names.items() if _closest(new, candidate.prefixes) == prefix
    }
    layout = _match_layout(list(inside.values()), args, candidate.location, source)
    unused = unused + [
        {"source": name, "reason": fact(FactCode.NOT_A_TENSOR, type=type(value).__name__)}
        for name, value in candidate.state.items()
        if not isinstance(value, (torch.Tensor, Mapping))
    ]
    state: State = {}
    for old, new in names.items():
        name = layout.original_key(inside.get(old, new))
        if old not in inside and not (len(candidate.prefixes) == 1 and layout.is_known(name)):
            unused.append({"source": old, "reason": fact(FactCode.OUTSIDE_MODULE, prefix=prefix.rstrip("."))})
        elif name in state:
            raise ConversionError(ConversionMessage.PREFIX_AMBIGUOUS, source=source, prefix=prefix)
        else:
            state[name] = candidate.state[old]
    notes = candidate.notes + notes
    if prefix:
        notes.append(fact(FactCode.PREFIX_REMOVED, prefix=prefix))
    if layout.renames:
        notes.append(fact(FactCode.KEYS_RENAMED, layout=layout.name))
    metadata = metadata_from_args(args, source)
    return Checkpoint(state, source, layout, [], unused, notes, metadata, is_self_distilled=candidate.is_self_distilled)


def _closest(name: str, prefixes: list[str]) -> str | None:
    """Returns the longest prefix of a key."""
    return max((prefix for prefix in prefixes if name.startswith(prefix)), key=len, default=None)


def _strip_wrappers(names: list[str], source: str) -> tuple[dict[str, str], list[Fact]]:
    """Removes the names of wrappers from keys; returns old key -> new key, and notes."""
    new_keys = {name: ".".join(part for part in name.split(".") if part not in WRAPPER_PREFIXES) for name in names}
    wrappers = sorted({part for name in names for part in name.split(".")} & WRAPPER_PREFIXES)
    if len(set(new_keys.values())) < len(new_keys):
        raise ConversionError(ConversionMessage.WRAPPER_AMBIGUOUS, source=source, wrappers=wrappers)
    return new_keys, [fact(FactCode.WRAPPERS_REMOVED, names=wrappers)] if wrappers else []


def _match_layout(keys: list[str], args: dict[str, Any], location: str, source: str) -> Layout:
    """Returns the layout of the keys of one model."""
    found = [layout for layout in supported_layouts() if layout.matches(keys, args)]
    if not found:
        raise _no_layout_error(source, location, keys, args)
    if len(found) > 1:
        raise ConversionError(
            ConversionMessage.LAYOUT_AMBIGUOUS,
            source=source,
            layouts=[layout.name for layout in found],
            location=f" under {location}" if location else "",
            keys=keys[:MAX_LISTED_KEYS],
        )
    return found[0]


def _no_layout_error(source: str, location: str, keys: list[str], args: dict[str, Any]) -> ConversionError:
    """Returns the error for keys that no supported layout has; it names the layout if it is a known one."""
    close = [layout for layout in supported_layouts() if any(layout.find_prefix(key) is not None for key in keys)]
    unknown = min((layout.unknown_encoder_keys(keys) for layout in close), key=len, default=[]) or keys
    attributes: dict[str, Any] = {"source": source, "keys": unknown[:MAX_LISTED_KEYS]}
    for layout in LAYOUTS.values():
        if layout.unsupported and layout.matches(keys, args):
            return ConversionError(
                ConversionMessage.UNSUPPORTED_LAYOUT, layout=layout.title, reason=layout.unsupported, **attributes
            )
    return ConversionError(
        ConversionMessage.NO_LAYOUT,
        location=f" under {location}" if location else "",
        layouts=[layout.title for layout in supported_layouts()],
        **attributes,
    )


def _select_candidate(
    candidates: list[_Candidate], source: str, weights: str | None
) -> tuple[_Candidate, list[dict[str, Any]], list[Fact]]:
    """Selects a ViT; returns it, and the report entries and notes on the others."""
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
    notes = [fact(FactCode.AVERAGED_WEIGHTS, location=selected.location)] if selected.is_averaged else []
    unused = []
    for other in candidates:
        if other is not selected:
            code = FactCode.OTHER_AVERAGED_WEIGHTS if other.is_averaged else FactCode.OTHER_PLAIN_WEIGHTS
            notes.append(fact(code, location=other.location))
            unused.append({"source": other.location, "reason": notes[-1]})
    return selected, unused, notes
