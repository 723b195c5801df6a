"""The reader of YAML files that a user names: recipes and benchmarks. Its limits hold before values are built."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from ..errors import CommandLineError, summarize_exception
from .messages import SettingsMessage

MAX_BYTES, MAX_DEPTH = 1_000_000, 20
LONG_NUMBER = re.compile(r"[-+]?[0-9][0-9a-fA-FxXobO_:.]{300,}")  # to build and to print it takes minutes
PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
TEXT_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


def read_yaml(path: Path, loader: Any = PARSER) -> dict[str, Any]:
    """Reads a file with `parse_yaml`.

    Raises:
        CommandLineError: If it cannot be read, or is not valid.
    """
    try:
        if (size := path.stat().st_size) > MAX_BYTES or not path.is_file():
            raise CommandLineError(SettingsMessage.YAML_UNREADABLE, path=path, error=f"{size / 1e6:.1f} MB")
        content = path.read_bytes()
    except OSError as error:
        raise CommandLineError(SettingsMessage.YAML_UNREADABLE, path=path, error=error.strerror) from None
    return parse_yaml(content, path, loader)


def parse_yaml(content: bytes, path: Path, loader: Any = PARSER) -> dict[str, Any]:
    """Parses a mapping; `loader=TEXT_LOADER` leaves all values as text.

    Raises:
        CommandLineError: If it is not one mapping, has references (a few lines of nested references can expand to any
            size), repeats a name, or exceeds a limit.
    """
    try:
        text = content.decode("utf-8-sig")
        _check_structure(text, path)
        values = yaml.load(text, Loader=loader)
    except CommandLineError:
        raise
    except (yaml.YAMLError, ValueError) as error:
        raise CommandLineError(SettingsMessage.YAML_INVALID, path=path, error=summarize_exception(error)) from None
    if not isinstance(values or {}, dict):
        raise CommandLineError(SettingsMessage.YAML_NOT_A_MAPPING, path=path)
    return {str(key): value for key, value in (values or {}).items()}


def _check_structure(text: str, path: Path) -> None:
    """Checks references, depth, long numbers and repeated names of all mappings."""
    names: list[list[str | None] | None] = []  # of the open mappings: keys and values in turn; None for a list
    repeated: list[str] = []
    event: Any
    for event in yaml.parse(text, Loader=PARSER):
        if isinstance(event, yaml.AliasEvent):
            raise CommandLineError(SettingsMessage.YAML_WITH_ALIASES, path=path)
        is_scalar = isinstance(event, yaml.ScalarEvent)
        if is_scalar and event.implicit[0] and LONG_NUMBER.fullmatch(event.value):
            raise CommandLineError(SettingsMessage.YAML_INVALID, path=path, error="a number has too many digits")
        if isinstance(event, yaml.CollectionEndEvent):
            found = Counter((names.pop() or [])[::2])
            repeated += [str(name) for name, count in found.items() if count > 1 and name is not None]
        elif is_scalar or isinstance(event, yaml.CollectionStartEvent):
            if names and names[-1] is not None:
                names[-1].append(event.value if is_scalar else None)
            if not is_scalar:
                names.append([] if isinstance(event, yaml.MappingStartEvent) else None)
            if len(names) > MAX_DEPTH:
                raise CommandLineError(SettingsMessage.YAML_INVALID, path=path, error="it is nested too deeply")
    if repeated:
        raise CommandLineError(SettingsMessage.YAML_REPEATS_NAMES, path=path, names=repeated)
