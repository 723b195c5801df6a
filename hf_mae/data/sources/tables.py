"""Reads tables of images (CSV, TSV, JSON Lines), and parses their labels."""

import csv
import io
import json
import logging
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from ...errors import UsageError, warn
from ...files.atomic import read_text
from ..messages import DataMessage
from ..splits import SPLIT_NAMES, parse_split_name, split_words

logger = logging.getLogger(__name__)

LABEL_COLUMNS = ("labels", "label", "class", "category", "cls")  # the last is WebDataset's
SPLIT_COLUMNS = ("split", "subset", "partition")  # the values of the first of them must be splits
SPLIT_WORDS = {*SPLIT_COLUMNS, "splits", "fold", "folds"}  # in other names of such columns
OTHER_SPLIT_COLUMNS = ("set", "phase", "usage", "mode", "stage", "purpose")  # the values may be splits
SPLIT_FLAG = re.compile(r"(?:is[\s_.-]*|in[\s_.-]+)(.+)|(train|training|val|validation|test|testing)", re.IGNORECASE)
PATIENT_COLUMN = re.compile(
    r"(patient|pat|subject|subj|video|vid|case)([\s_-]?(id|no|nr|number|name|uid|key))?"
    r"|(lesion|study|exam|examination|session|sequence|person|p)[\s_-]?(id|no|nr|number|uid)",
    re.IGNORECASE,
)
WINDOWS_ROOT = re.compile(r"[A-Za-z]:[/\\]|\\\\")
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


def find_split_columns(columns: Mapping[str, Callable[[], Iterable[Any]]], others: Container[str | None]) -> list[str]:
    """Returns the columns that may state the split: by their names, or because all of their values are words of splits.

    Args:
        columns: name -> function that returns the values.
        others: columns with something else.
    """
    names = [name for name in columns if name and name not in others]
    return [name for name in names if _is_split_name(name) or _are_split_words(columns[name]())]


def _is_split_name(name: str) -> bool:
    is_named = has_split_word(name) or name.strip().lower() in OTHER_SPLIT_COLUMNS
    return is_named or flagged_split(name) is not None


def has_split_word(name: str) -> bool:
    """Whether the name of a column means splits or folds."""
    return not SPLIT_WORDS.isdisjoint(split_words(name))


def _are_split_words(values: Iterable[Any]) -> bool:
    any_word = False
    for value in values:
        if value is not None and value != "":
            any_word = isinstance(value, str) and value.strip().lower() in SPLIT_NAMES
            if not any_word:
                break
    return any_word


def flagged_split(name: str) -> str | None:
    """Returns the split of a column of booleans: `is_test`, `isTrain`, `val`; None for another column."""
    match = SPLIT_FLAG.fullmatch(name.strip())
    return parse_split_name(match[1] or match[2]) if match else None


def find_group_column(
    columns: Mapping[str, Callable[[], Iterable[Any]]], requested: str | None, source: Any
) -> str | None:
    """Returns the requested column of groups, or else the column `group` (in any case); None without.

    A column that may name patients is logged as a warning, if several images have the same value.
    """
    found = requested or next((name for name in columns if name.strip().lower() == "group"), None)
    if found is not None:
        return found if found in columns else None
    for name in columns:
        if PATIENT_COLUMN.fullmatch(name.strip()):
            values = [str(value) for value in columns[name]() if value not in (None, "")]
            if 1 < len(set(values)) < len(values):
                warn(logger, DataMessage.GROUP_COLUMN_UNUSED, source=source, column=name)
    return None


def posix_paths(paths: list[str]) -> list[str]:
    """Returns the paths of a table with / between the folders; those with a drive or a scheme begin with /."""
    return [_posix_path(path) if "\\" in path or ":" in path else path for path in paths]


def _posix_path(path: str) -> str:
    if WINDOWS_ROOT.match(path) or "/" not in path:
        path = path.replace("\\", "/")
    return f"/{path}" if WINDOWS_ROOT.match(path) or "://" in path else path


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


def _fold(name: str) -> str:
    """Returns a name without case, invisible characters, and the encoding of characters and spaces."""
    visible = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", visible).casefold().split())


def check_class_names(names: Iterable[str], source: str) -> None:
    """Raises UsageError if class names differ only in case, invisible characters, or the encoding of characters."""
    by_folded: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_folded[_fold(name)].append(name)
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
