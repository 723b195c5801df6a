"""Reads tables of images (CSV, TSV, JSON Lines), and parses their labels."""

import csv
import io
import json
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ...files.atomic import read_text
from ..messages import DataMessage

SPLIT_COLUMNS = ("split", "subset", "partition")  # names of the column with the split
MISSING_LABELS = ("nan", "none", "null", "<na>", "nat")  # as pandas and other programs write them
MAX_CELL_CHARS = 1 << 24


def read_table(path: Path) -> list[dict[str, Any]]:
    """Reads the rows of a CSV (commas, semicolons or tabs) or JSON Lines file; the values of a CSV are text.

    Raises:
        UsageError: If the file does not exist, has no rows, or has an invalid line.
    """
    if not path.is_file():
        raise UsageError(DataMessage.TABLE_NOT_FOUND, path=path)
    text = read_text(path)
    rows = _parse_json_lines(path, text) if text.lstrip()[:1] in ("{", "[") else _parse_delimited(path, text)
    if not rows:
        raise UsageError(DataMessage.TABLE_EMPTY, path=path)
    return rows


def _parse_json_lines(path: Path, text: str) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=lambda pairs: unique_keys(pairs, str(path)))
        except (json.JSONDecodeError, RecursionError) as error:
            raise UsageError(DataMessage.LINE_NOT_JSON, path=path, line=number, reason=error) from None
        if not isinstance(row, dict):
            raise UsageError(DataMessage.LINE_NOT_OBJECT, path=path, line=number)
        rows.append(row)
    return rows


def unique_keys(pairs: list[tuple[str, Any]], source: str) -> dict[str, Any]:
    """Makes the object of JSON pairs; raises UsageError if two have the same key."""
    check_unique_columns([name for name, _ in pairs], source)
    return dict(pairs)


def check_unique_columns(names: Iterable[str], source: str) -> None:
    """Raises UsageError if two columns have the same name."""
    names = [name.strip() for name in names]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(DataMessage.COLUMN_REPEATED, source=source, columns=repeated)


def find_column(existing: Iterable[str], names: Iterable[str]) -> str | None:
    """Returns the existing column with the first of these names, in any case; None without."""
    by_name = {column.strip().lower(): column for column in reversed(list(existing)) if column}
    return next((by_name[name] for name in names if name in by_name), None)


def find_split_column(existing: Iterable[str], source: Any) -> str | None:
    """Returns the column with the splits; None without.

    Raises:
        UsageError: If there are several.
    """
    existing = list(existing)
    found = [column for name in SPLIT_COLUMNS if (column := find_column(existing, [name]))]
    if len(found) > 1:
        raise UsageError(DataMessage.SEVERAL_SPLIT_COLUMNS, source=source, columns=found)
    return found[0] if found else None


def _parse_delimited(path: Path, text: str) -> list[dict[str, Any]]:
    head = re.split(r"[\r\n]", text, maxsplit=1)[0]
    separator = max(",;\t", key=head.count)
    previous_limit = csv.field_size_limit(MAX_CELL_CHARS)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
        check_unique_columns(filter(None, reader.fieldnames or ()), str(path))
        rows = list(reader)
    except csv.Error as error:
        raise UsageError(DataMessage.TABLE_UNREADABLE, path=path, reason=error) from None
    finally:
        csv.field_size_limit(previous_limit)
    if line := next((number for number, row in enumerate(rows, 2) if None in row), None):
        raise UsageError(DataMessage.TOO_MANY_CELLS, path=path, line=line)
    return rows


def normalize_text(text: str) -> str:
    """Normalizes a name: composed Unicode characters (NFC), no spaces around it."""
    return unicodedata.normalize("NFC", text).strip()


def normalize_class_name(name: str) -> str:
    """Normalizes the name of a class; integers have no fraction: `1.0` is `1`."""
    name = normalize_text(name)
    return name.split(".")[0] if re.fullmatch(r"[+-]?\d+\.0*", name) else name


def check_class_names(names: Iterable[str], source: str) -> None:
    """Raises UsageError if class names differ only in case or in the encoding of their characters."""
    by_folded: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_folded[normalize_text(name).casefold()].append(name)
    if similar := [" and ".join(equal) for equal in by_folded.values() if len(equal) > 1]:
        raise UsageError(DataMessage.CLASS_NAMES_SIMILAR, source=source, names=similar)


def parse_label(value: Any, location: str) -> str:
    """Returns the class name of a label: text is kept, and integers have no fraction (1 and 1.0 are one class).

    Args:
        value: the value in the table.
        location: file, row and column, for messages.

    Raises:
        UsageError: If it is missing (empty, null, NaN, -1) or a list.
    """
    if isinstance(value, (list, tuple, dict, set)):
        raise UsageError(DataMessage.LABEL_NOT_SINGLE, location=location, value=value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = "" if value is None else normalize_class_name(str(value))
    missing = isinstance(value, float) and math.isnan(value)
    if missing or not text or text.lower() in MISSING_LABELS or text == "-1":
        raise UsageError(DataMessage.LABEL_MISSING, location=location, value=value)
    return text
