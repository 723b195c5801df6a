"""Reading tables of images (CSV, TSV, JSON lines), and what a label in one may be."""

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

from ..errors import UsageError, short_repr
from ..files.text_io import read_text

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
MISSING_LABELS = ("nan", "none", "null", "<na>", "nat")  # how programs write that there is none
MAX_CELL_CHARS = 1 << 24  # characters


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV (commas, semicolons or tabs) or JSON lines file; a CSV's values are text.

    Raises:
        UsageError: there is no such file, it has no rows, or a line cannot be understood.
    """
    if not path.is_file():
        raise UsageError(f"The table {path} does not exist.")
    text = read_text(path)
    rows = (
        _parse_json_lines(path, text) if path.suffix.lower() in (".jsonl", ".ndjson") else _parse_delimited(path, text)
    )
    if not rows:
        raise UsageError(f"{path} has no rows.")
    return rows


def _parse_json_lines(path: Path, text: str) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UsageError(f"{path} has a line that is no JSON ({error}): line {number}.") from None
        if not isinstance(row, dict):
            raise UsageError(f"{path} has a line that is no object of columns: line {number}.")
        rows.append(row)
    return rows


def _parse_delimited(path: Path, text: str) -> list[dict[str, Any]]:
    head = text.split("\n", 1)[0]
    separator = max(",;\t", key=head.count)
    before = csv.field_size_limit(MAX_CELL_CHARS)
    try:
        rows = list(csv.DictReader(text.splitlines(keepends=True), delimiter=separator))
    except csv.Error as error:
        raise UsageError(f"{path} is no table that can be read ({error}).") from None
    finally:
        csv.field_size_limit(before)
    if more := next((number for number, row in enumerate(rows, 2) if None in row), None):
        raise UsageError(f"{path} has more cells in row {more} than its first line has columns.")
    return rows


def parse_label(value: Any, location: str) -> str:
    """A label as the name of a class: text as it is, and whole numbers without a fraction (1 and 1.0 are one class).

    Args:
        location: which row it stands in, for the sentence.

    Raises:
        UsageError: it is missing (empty, null, NaN, -1) or a list.
    """
    if isinstance(value, (list, tuple, dict, set)):
        raise UsageError(f"{location} has the label {short_repr(value)}: one image has one class.")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = "" if value is None else str(value).strip()
    if re.fullmatch(r"[+-]?\d+\.0*", text):
        text = text.split(".")[0]
    missing = isinstance(value, float) and math.isnan(value)
    if missing or not text or text.lower() in MISSING_LABELS or text == "-1":
        raise UsageError(
            f"{location} has no label ({'nothing' if value is None or not text else text}): give it one, or take the "
            "row out."
        )
    return text
