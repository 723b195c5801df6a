"""Options: the name, type, default, help text and bounds of a flag, read from the fields of dataclasses.

Each option is declared once, as a dataclass field. Flags, recipes, Python arguments, help and docs are derived from it.
"""

import dataclasses
import json
import math
import operator
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NewType

from ..errors import CommandLineError
from .messages import SettingsMessage

_COMPARISONS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "ge": (operator.ge, ">="),
    "gt": (operator.gt, ">"),
    "le": (operator.le, "<="),
    "lt": (operator.lt, "<"),
}
Prevalence = NewType("Prevalence", float)  # type of options that `read_prevalence` reads
TRUE_STRINGS, FALSE_STRINGS = ("true", "yes", "on", "t", "y", "1"), ("false", "no", "off", "f", "n", "0")


@dataclass(frozen=True)
class Option:
    """One option of a command.

    Args:
        value_type: type of the value, or of each value: `str`, `int`, `float`, `bool` or `dict` (JSON).
        multiple: whether the option takes one or more values.
        choices: the values that are allowed.
        show_in_help: whether `hf-mae COMMAND --help` lists the option (`--help_all` lists all).
        group: heading in the help text.
        metavar: placeholder of the value in the help text (see `placeholder`).
        aliases: other names.
        mapping: whether a text option also takes a mapping (JSON, or a YAML mapping).
        bounds: bounds of a number: `ge`, `gt`, `le` and `lt` (at least, more than, at most, less than).
        nullable: whether None (null in a recipe) is a value.
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
    nullable: bool = True

    @property
    def placeholder(self) -> str:
        """The value in usage lines: `CHECKPOINT`, `N`, `{auto,mean,cls}`."""
        if self.metavar or self.value_type is bool:
            return self.metavar or ""
        if self.choices:
            return f"{{{','.join(self.choices)}}}"
        by_name = {"data_dir": "DATA", "model_name_or_path": "CHECKPOINT"}
        by_type = {int: "N", float: "NUMBER", dict: "JSON"}
        return by_name.get(self.name) or by_type.get(self.value_type) or self.name.upper()

    def read(self, value: Any, location: str = "") -> Any:
        """Converts a value to the type of the option and validates it.

        Args:
            value: text of a flag, a YAML value (YAML reads `1e-3` as text), or a Python value (also a numpy array).
            location: where the value is, for messages, e.g. ` in recipe FILE`; empty for a flag.

        Raises:
            CommandLineError: If the value is not valid.
        """
        if value is None and (self.nullable or self.default is None):
            return None
        value = value.tolist() if hasattr(value, "tolist") else value
        if self.multiple:
            return [
                self._parse_value(item, location) for item in (value if isinstance(value, list | tuple) else [value])
            ]
        return self._parse_value(value, location)

    def _parse_value(self, value: Any, location: str) -> Any:
        try:
            is_container = isinstance(value, list | tuple | dict)
            if value is None or is_container and not (self.value_type is dict or self.mapping):
                raise TypeError(value)
            value = _CONVERTERS[self.value_type](value)
        except (TypeError, ValueError, OverflowError):
            message = _INVALID_TYPE[self.value_type]
            raise CommandLineError(message, value=value, name=self.name, location=location) from None
        self.check(value, location)
        return value

    def check(self, value: Any, location: str = "") -> None:
        """Checks the choices and bounds of a value that has the type of the option.

        Raises:
            CommandLineError: If the value is not valid.
        """
        if self.choices is not None and value not in self.choices:
            raise CommandLineError(
                SettingsMessage.INVALID_CHOICE, value=value, name=self.name, location=location, choices=self.choices
            )
        if not all(_COMPARISONS[name][0](value, bound) for name, bound in self.bounds.items()):
            bounds = " and ".join(f"{_COMPARISONS[name][1]} {bound}" for name, bound in self.bounds.items())
            raise CommandLineError(SettingsMessage.OUT_OF_BOUNDS, name=self.name, bounds=bounds, value=value)


def read_bool(value: Any) -> bool:
    """Reads a boolean: `true`, `yes`, `on`, ... as text, or a Python boolean."""
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if word not in TRUE_STRINGS + FALSE_STRINGS:
        raise ValueError(value)
    return word in TRUE_STRINGS


def _read_text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str | dict | list) else str(value)


def _read_int(value: Any) -> int:
    if isinstance(value, bool) or isinstance(value, float) and value != int(value):
        raise ValueError(value)
    return int(value)


def _read_float(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError(value)
    return float(value)


def read_prevalence(value: Any) -> Prevalence:
    """Reads a prevalence: a number, `1%`, `1/101`, or `1:100` (one positive for 100 negative images, so 1/101).

    Raises:
        ValueError: If the value is not a number above 0 and below 1.
    """
    text = str(value).replace(" ", "")
    if ":" in text:
        first, second = map(float, text.split(":"))
        total = first + second
    elif "/" in text:
        first, total = map(float, text.split("/"))
    else:
        first, total = (float(text[:-1]), 100.0) if text.endswith("%") else (float(text), 1.0)
    if isinstance(value, bool) or not 0 < first < total < math.inf:
        raise ValueError(value)
    return Prevalence(first / total)


def _read_json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else dict(value)


_CONVERTERS: dict[Any, Callable[[Any], Any]] = {
    str: _read_text,
    int: _read_int,
    float: _read_float,
    bool: read_bool,
    dict: _read_json,
    Prevalence: read_prevalence,
}
_INVALID_TYPE: dict[Any, SettingsMessage] = {
    str: SettingsMessage.INVALID_TEXT,
    int: SettingsMessage.INVALID_INTEGER,
    float: SettingsMessage.INVALID_NUMBER,
    bool: SettingsMessage.INVALID_BOOLEAN,
    dict: SettingsMessage.INVALID_JSON,
    Prevalence: SettingsMessage.INVALID_PREVALENCE,
}


def option(default: Any = None, help: str = "", **attributes: Any) -> Any:
    """Returns a dataclass field that declares an option.

    Args:
        default: default value.
        help: help text.
        attributes: `choices`, `metavar`, `aliases` and `group` of `Option` (default: the `option_group` of the
            dataclass), bounds by name (`ge=1`), and `hidden` (only `--help_all` lists the option).
    """
    metadata = {"help": help, **attributes}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def dataclass_options(cls: type) -> list[Option]:
    """Returns the options that a dataclass declares or inherits; `--help` does not list its `hidden_options`."""
    hints, hidden = typing.get_type_hints(cls), getattr(cls, "hidden_options", ())
    options = [
        _option_from_field(item, hints[item.name], _declaring_class(cls, item))
        for item in dataclasses.fields(cls)
        if item.init
    ]
    return [dataclasses.replace(item, show_in_help=False) if item.name in hidden else item for item in options]


def _declaring_class(cls: type, item: dataclasses.Field[Any]) -> type:
    return next(c for c in reversed(cls.__mro__) if vars(c).get("__dataclass_fields__", {}).get(item.name) is item)


def _option_from_field(dataclass_field: dataclasses.Field[Any], hint: Any, declared_in: type) -> Option:
    metadata, default = dataclass_field.metadata, dataclass_field.default
    if dataclass_field.default_factory is not dataclasses.MISSING:
        default = dataclass_field.default_factory()
    value_type, multiple = _value_type(hint)
    attributes = {name: metadata[name] for name in ("help", "metavar") if name in metadata}
    attributes |= {name: tuple(metadata[name]) for name in ("choices", "aliases") if name in metadata}
    attributes["bounds"] = {name: metadata[name] for name in _COMPARISONS if name in metadata}
    attributes["nullable"] = types.NoneType in typing.get_args(hint)
    attributes["group"] = metadata.get("group", vars(declared_in).get("option_group", "Flags"))
    attributes["show_in_help"] = not metadata.get("hidden", False)
    default = None if default is dataclasses.MISSING else default
    return Option(dataclass_field.name, value_type, multiple, default, **attributes)


def _value_type(hint: Any) -> tuple[type, bool]:
    """Returns the type of a value, and whether there may be several: `list[str] | None` -> (str, True)."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is list:
        return typing.get_args(hint)[0], True
    return hint, False


def type_from_annotation(annotation: str) -> tuple[type, bool]:
    """Reads the type from the text of an annotation: `IntervalStrategy | str` -> (str, False)."""
    parts = [part.strip() for part in annotation.split("|")]
    if any(part.startswith("list[") for part in parts):
        return str, True
    for name, value_type in (("str", str), ("bool", bool), ("int", int), ("float", float)):
        if name in parts:
            return value_type, False
    return dict, False
