"""Reads tables of images (CSV, TSV, JSON Lines), and parses their labels."""

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ...files.atomic import read_text
from ..messages import DataMessage

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
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
    rows = (
        _parse_json_lines(path, text) if path.suffix.lower() in (".jsonl", ".ndjson") else _parse_delimited(path, text)
    )
    if not rows:
        raise UsageError(DataMessage.TABLE_EMPTY, path=path)
    return rows


def _parse_json_lines(path: Path, text: str) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UsageError(DataMessage.LINE_NOT_JSON, path=path, line=number, reason=error) from None
        if not isinstance(row, dict):
            raise UsageError(DataMessage.LINE_NOT_OBJECT, path=path, line=number)
        rows.append(row)
    return rows


def _parse_delimited(path: Path, text: str) -> list[dict[str, Any]]:
    head = text.split("\n", 1)[0]
    separator = max(",;\t", key=head.count)
    previous_limit = csv.field_size_limit(MAX_CELL_CHARS)
    try:
        rows = list(csv.DictReader(text.splitlines(keepends=True), delimiter=separator))
    except csv.Error as error:
        raise UsageError(DataMessage.TABLE_UNREADABLE, path=path, reason=error) from None
    finally:
        csv.field_size_limit(previous_limit)
    if line := next((number for number, row in enumerate(rows, 2) if None in row), None):
        raise UsageError(DataMessage.TOO_MANY_CELLS, path=path, line=line)
    return rows


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
    text = "" if value is None else str(value).strip()
    if re.fullmatch(r"[+-]?\d+\.0*", text):
        text = text.split(".")[0]
    missing = isinstance(value, float) and math.isnan(value)
    if missing or not text or text.lower() in MISSING_LABELS or text == "-1":
        raise UsageError(DataMessage.LABEL_MISSING, location=location, value=value)
    return text
