"""Class names for a converted classifier."""

import json
from pathlib import Path
from typing import Any

from .errors import ConversionError


def read_labels(labels: str | Path | list[str]) -> list[str]:
    """Class names from a list, a text file (one a line), or a JSON file (a list, or an id2label object).

    Raises:
        ConversionError: there is no such file, or it does not name at least two classes, each once.
    """
    if isinstance(labels, (list, tuple)):
        names, where = [str(name) for name in labels], "labels"
    else:
        names, where = _read_file(Path(labels)), str(labels)
    if len(set(names)) < len(names) or len(names) < 2:
        raise ConversionError(f"{where} must name at least two classes, each once; it has {len(names)} lines.")
    return names


def _read_file(path: Path) -> list[str]:
    if not path.is_file():
        raise ConversionError(f"{path} does not exist: --labels takes a file with one class name a line, or JSON.")
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        loaded: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConversionError(f"{path} is no JSON ({error}).") from None
    loaded = loaded.get("id2label", loaded) if isinstance(loaded, dict) else loaded
    return [loaded[key] for key in sorted(loaded, key=int)] if isinstance(loaded, dict) else loaded
