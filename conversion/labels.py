"""Class names for a converted classifier."""

import json
from pathlib import Path
from typing import Any

from hf_mae.files.text_io import read_text

from .errors import ConversionError

LABEL_KEYS = ("id2label", "label2id", "class_to_idx", "classes", "class_names")  # under which JSON files keep them


def read_labels(labels: str | Path | list[str]) -> list[str]:
    """Class names from a list, a text file (one a line), or JSON.

    JSON is a list of names, or an object that numbers them either way round: `id2label` (`{"0": "polyp"}`) or
    `label2id` and torchvision's `class_to_idx` (`{"polyp": 0}`), also under one of these keys.

    Raises:
        ConversionError: there is no such file, or it does not name at least two classes, each once.
    """
    if isinstance(labels, (list, tuple)):
        names, where = [str(name) for name in labels], "labels"
    else:
        names, where = _read_label_file(Path(labels)), str(labels)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or len(names) < 2:
        found = f"'{twice[0]}' stands there twice" if twice else f"it names {len(names)}"
        raise ConversionError(f"{where} must name at least two classes, each once; {found}.")
    return names


def _read_label_file(path: Path) -> list[str]:
    if not path.is_file():
        raise ConversionError(f"{path} does not exist: --labels takes a file with one class name a line, or JSON.")
    text = read_text(path, ConversionError)
    if path.suffix != ".json":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        loaded: Any = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConversionError(f"{path} is no JSON ({error}).") from None
    if isinstance(loaded, dict):
        key = next((key for key in LABEL_KEYS if isinstance(loaded.get(key), (dict, list))), None)
        loaded = loaded[key] if key else loaded
    names = _order_by_index(loaded, path) if isinstance(loaded, dict) else loaded
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise ConversionError(f"{path} is no list of class names, and no object that numbers them.")
    return names


def _order_by_index(content: dict[str, Any], path: Path) -> list[str]:
    """Names in the order of their numbers, which are the keys or the values."""
    numbers = list(content) if all(str(key).strip().isdecimal() for key in content) else list(content.values())
    names = list(content.values()) if numbers == list(content) else list(content)
    try:
        numbered = {int(number): name for number, name in zip(numbers, names)}
    except (TypeError, ValueError):
        numbered = {}
    if sorted(numbered) != list(range(len(content))):
        raise ConversionError(f"{path} does not number its {len(content)} classes from 0 without gaps.")
    return [numbered[number] for number in range(len(content))]
