"""Reads the class names of a converted classifier."""

import json
from pathlib import Path
from typing import Any

from hf_mae.files.atomic import read_text

from .messages import ConversionError, ConversionMessage

LABEL_KEYS = ("id2label", "label2id", "class_to_idx", "classes", "class_names")  # keys of JSON files


def read_labels(labels: str | Path | list[str]) -> list[str]:
    """Reads class names from a list, a text file (one name per line), or a JSON file.

    The JSON is a list of names, or an object that numbers them: `id2label` (`{"0": "polyp"}`), or `label2id` and
    torchvision's `class_to_idx` (`{"polyp": 0}`). The list or object can also be the value of one of `LABEL_KEYS`.

    Raises:
        ConversionError: If the file does not exist or is invalid, or it does not contain at least two unique names.
    """
    if isinstance(labels, (list, tuple)):
        names, source = [str(name) for name in labels], "labels"
    else:
        names, source = _read_label_file(Path(labels)), str(labels)
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise ConversionError(ConversionMessage.LABELS_DUPLICATE, source=source, name=duplicates[0])
    if len(names) < 2:
        raise ConversionError(ConversionMessage.LABELS_TOO_FEW, source=source, count=len(names))
    return names


def _read_label_file(path: Path) -> list[str]:
    if not path.is_file():
        raise ConversionError(ConversionMessage.LABELS_NOT_FOUND, path=path)
    text = read_text(path, ConversionError)
    if path.suffix != ".json":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        content: Any = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConversionError(ConversionMessage.JSON_INVALID, path=path, reason=error) from None
    if isinstance(content, dict):
        key = next((key for key in LABEL_KEYS if isinstance(content.get(key), (dict, list))), None)
        content = content[key] if key else content
    names = _order_by_index(content, path) if isinstance(content, dict) else content
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise ConversionError(ConversionMessage.LABELS_INVALID, path=path)
    return names


def _order_by_index(content: dict[str, Any], path: Path) -> list[str]:
    """Returns the names in the order of their numbers, which are either the keys or the values."""
    numbers = list(content) if all(str(key).strip().isdecimal() for key in content) else list(content.values())
    names = list(content.values()) if numbers == list(content) else list(content)
    try:
        numbered = {int(number): name for number, name in zip(numbers, names)}
    except (TypeError, ValueError):
        numbered = {}
    if sorted(numbered) != list(range(len(content))):
        raise ConversionError(ConversionMessage.LABELS_NOT_NUMBERED, path=path, count=len(content))
    return [numbered[number] for number in range(len(content))]
