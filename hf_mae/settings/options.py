"""Options: what a flag, a line of a recipe or an argument of a workflow is, read from the fields of dataclasses.

The field is the one place where an option is declared: its name, type, default, help, choices, and whether it is among
those that `VERB --help` shows.
"""

import dataclasses
import json
import math
import operator
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import CommandLineError, short_repr

_COMPARISONS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "ge": (operator.ge, "at least"),
    "gt": (operator.gt, "above"),
    "le": (operator.le, "at most"),
    "lt": (operator.lt, "below"),
}
TRUE_STRINGS, FALSE_STRINGS = ("true", "yes", "on", "t", "y", "1"), ("false", "no", "off", "f", "n", "0")


@dataclass(frozen=True)
class Option:
    """One option of a verb.

    Args:
        value_type: `str`, `int`, `float`, `bool` or `dict` (JSON), of the value or, with `multiple`, of each value.
        multiple: it takes one or more values.
        mapping: of text, it takes names and values (JSON, or a mapping of YAML) as well.
        bounds: of a number, by `ge`, `gt`, `le` and `lt` (at least, more than, at most, less than).
        show_in_help: `VERB --help` shows it.
        group: heading under which it is shown.
        aliases: other spellings.
    """

    name: str
    value_type: type
    multiple: bool = False
    default: Any = None
    help: str = ""
    choices: tuple[str, ...] | None = None
    show_in_help: bool = False
    group: str = "Flags"
    metavar: str | None = None
    aliases: tuple[str, ...] = ()
    mapping: bool = False
    bounds: Mapping[str, float] = field(default_factory=dict, hash=False)

    def read(self, value: Any, source: str) -> Any:
        """A value as this option's type.

        Args:
            value: text of a flag, what YAML made of a recipe's line (it reads `1e-3` as text), or a Python value.
            source: who gave it, the subject of the sentence.

        Raises:
            CommandLineError: it is no such value.
        """
        if value is None:
            return None
        if self.multiple:
            return [
                self._parse_value(item, source) for item in (value if isinstance(value, (list, tuple)) else [value])
            ]
        return self._parse_value(value, source)

    def _parse_value(self, value: Any, source: str) -> Any:
        try:
            if isinstance(value, (list, tuple, dict)) and not (self.value_type is dict or self.mapping):
                raise TypeError(value)
            value = _CONVERTERS[self.value_type](value)
        except (TypeError, ValueError, OverflowError):
            kind = {int: "a whole number", float: "a finite number", bool: "true or false", dict: "JSON"}.get(
                self.value_type, "text"
            )
            raise CommandLineError(
                f"{source} gives {self.name} the value {short_repr(value)}, which it cannot take: it takes {kind}."
            ) from None
        if self.choices is not None and value not in self.choices:
            raise CommandLineError(
                f"{source} gives {self.name} the value {short_repr(value)}; it takes one of "
                f"{', '.join(map(str, self.choices))}."
            )
        if not all(_COMPARISONS[name][0](value, bound) for name, bound in self.bounds.items()):
            raise CommandLineError(f"--{self.name} must {self._format_bounds()}, not {short_repr(value)}.")
        return value

    def _format_bounds(self) -> str:
        if self.bounds.keys() == {"ge", "le"}:
            return f"lie between {self.bounds['ge']} and {self.bounds['le']}"
        return "be " + " and ".join(f"{_COMPARISONS[name][1]} {bound}" for name, bound in self.bounds.items())


def read_bool(value: Any) -> bool:
    """`true` and its like, in text or as YAML and Python have it."""
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if word not in TRUE_STRINGS + FALSE_STRINGS:
        raise ValueError(value)
    return word in TRUE_STRINGS


def _read_text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, (str, dict, list)) else str(value)


def _read_int(value: Any) -> int:
    if isinstance(value, bool) or isinstance(value, float) and value != int(value):
        raise ValueError(value)
    return int(value)


def _read_float(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError(value)
    return float(value)


def _read_json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else dict(value)


_CONVERTERS: dict[type, Callable[[Any], Any]] = {
    str: _read_text,
    int: _read_int,
    float: _read_float,
    bool: read_bool,
    dict: _read_json,
}


def option(default: Any = None, help: str = "", **attributes: Any) -> Any:
    """A dataclass field that is an option.

    Args:
        attributes: `choices`, `show_in_help`, `group`, `metavar` and `aliases` of `Option`, and its bounds by name: `ge=1`.
    """
    metadata = {"help": help, **attributes}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def dataclass_options(cls: type) -> list[Option]:
    """The options that a dataclass declares, its own and inherited ones."""
    hints = typing.get_type_hints(cls)
    return [_option_from_field(item, hints[item.name]) for item in dataclasses.fields(cls) if item.init]


def _option_from_field(dataclass_field: dataclasses.Field[Any], hint: Any) -> Option:
    default = (
        dataclass_field.default
        if dataclass_field.default_factory is dataclasses.MISSING
        else dataclass_field.default_factory()
    )
    value, many = _value_type(hint)
    known = {
        name: dataclass_field.metadata[name]
        for name in ("help", "show_in_help", "group", "metavar")
        if name in dataclass_field.metadata
    }
    for name in ("choices", "aliases"):
        if name in dataclass_field.metadata:
            known[name] = tuple(dataclass_field.metadata[name])
    known["bounds"] = {
        name: dataclass_field.metadata[name] for name in _COMPARISONS if name in dataclass_field.metadata
    }
    return Option(dataclass_field.name, value, many, None if default is dataclasses.MISSING else default, **known)


def _value_type(hint: Any) -> tuple[type, bool]:
    """Type of a value, and whether there may be several: `list[str] | None` -> (str, True)."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is list:
        return typing.get_args(hint)[0], True
    return hint, False


def type_from_annotation(annotation: str) -> tuple[type, bool]:
    """The same, of an annotation that is text: `IntervalStrategy | str` -> (str, False)."""
    parts = [part.strip() for part in annotation.split("|")]
    parts = [part for part in parts if part != "None"]
    if any(part.startswith("list[") for part in parts):
        return str, True
    for name, kind in (("str", str), ("bool", bool), ("int", int), ("float", float)):
        if name in parts:
            return kind, False
    return dict, False
