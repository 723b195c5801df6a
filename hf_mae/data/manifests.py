"""CSV and JSONL manifests: `file_name`, `label`, perhaps `split` and `group`."""

import csv
import json
import os
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .entries import Entry, listed
from .splits import SPLIT_NAMES

MANIFEST_NAMES = ("manifest.csv", "manifest.jsonl", "metadata.csv", "metadata.jsonl")


def find_manifest(root: Path) -> Path | None:
    """The manifest that a path is, or that a folder holds."""
    if root.is_file() and root.suffix.lower() in (".csv", ".jsonl"):
        return root
    return next((root / name for name in MANIFEST_NAMES if (root / name).is_file()), None)


def read_manifest(manifest: Path, root: Path, group_column: str | None = None) -> list[Entry]:
    """Rows of a CSV or JSONL with `file_name`, `label`, perhaps `split` and `group`; names are relative to `root`.

    Raises:
        UsageError: a column is missing, or rows are not understood; all of these are listed.
    """
    rows = _read_rows(manifest)
    needed = ("file_name", "label", *([group_column] if group_column else []))
    if missing := [column for column in needed if column not in rows[0]]:
        raise UsageError(f"{manifest} lacks the column {', '.join(missing)}; it has {', '.join(map(str, rows[0]))}.")
    unknown = {_split_word(row) for row in rows} - SPLIT_NAMES.keys()
    has_groups = (group_column or "group") in rows[0]
    entries = [
        _entry(manifest, root, row, group_column or "group", has_groups)
        for row in rows
        if _split_word(row) not in unknown
    ]
    for problem, found in (
        ("files that do not exist", [entry.file_name for entry in entries if not os.path.isfile(entry.path)]),
        (f"splits of unknown names (known: {', '.join(SPLIT_NAMES)})", sorted(unknown)),
        ("files with two labels", _with_two_labels(entries)),
    ):
        if found:
            raise UsageError(f"{manifest} names {len(found)} {problem}: {listed(found, whole=True)}.")
    return entries


def _read_rows(manifest: Path) -> list[dict[str, Any]]:
    if not manifest.is_file():
        raise UsageError(f"The manifest {manifest} does not exist.")
    with open(manifest, encoding="utf-8-sig", newline="") as file:
        if manifest.suffix.lower() == ".jsonl":
            try:
                rows = [json.loads(line) for line in file if line.strip()]
            except json.JSONDecodeError as error:
                raise UsageError(f"{manifest} has a line that is no JSON ({error}).") from None
        else:
            rows = list(csv.DictReader(file))
    if not rows:
        raise UsageError(f"{manifest} has no rows.")
    return rows


def _split_word(row: dict[str, Any]) -> str:
    return str(row.get("split") or "train").strip().lower()


def _entry(manifest: Path, root: Path, row: dict[str, Any], group_column: str, has_groups: bool) -> Entry:
    """A row as an image."""
    name, label, group = row["file_name"], row["label"], row.get(group_column)
    if name is None or label is None or not str(label).strip():
        raise UsageError(f"{manifest} has a row without file_name or label: {row}.")
    if has_groups and group in (None, ""):
        raise UsageError(f"{manifest} has a row without {group_column}: {row}.")
    return Entry(
        path=os.path.join(root, str(name)),
        label=str(label).strip(),
        split=SPLIT_NAMES[_split_word(row)],
        file_name=str(name),
        group=None if group is None else str(group).strip(),
    )


def _with_two_labels(entries: list[Entry]) -> list[str]:
    """Files that stand in two rows of different labels, with both."""
    first: dict[str, Entry] = {}
    clashes = []
    for entry in entries:
        before = first.setdefault(entry.path, entry)
        if before.label != entry.label:
            clashes.append(f"{entry.file_name} ({before.label}, {entry.label})")
    return clashes
