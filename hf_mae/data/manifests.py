"""CSV and JSONL manifests: `file_name`, `label`, perhaps `split` and `group`."""

import csv
import json
import os
from pathlib import Path

from ..errors import UsageError
from .entries import Entry, listed
from .splits import SPLIT_NAMES

MANIFEST_NAMES = ("manifest.csv", "manifest.jsonl", "metadata.csv", "metadata.jsonl")


def find_manifest(root: Path) -> Path | None:
    if root.is_file() and root.suffix.lower() in (".csv", ".jsonl"):
        return root
    return next((root / name for name in MANIFEST_NAMES if (root / name).is_file()), None)


def read_manifest(manifest: Path, root: Path, group_column: str | None = None) -> list[Entry]:
    """Rows of a CSV or JSONL with `file_name`, `label`, perhaps `split` and `group`; names are relative to `root`."""
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
    needed = ("file_name", "label", *([group_column] if group_column else []))
    if missing := [column for column in needed if column not in rows[0]]:
        raise UsageError(f"{manifest} lacks the column {', '.join(missing)}; it has {', '.join(map(str, rows[0]))}.")
    entries, absent, unknown = [], [], set()
    seen: dict[str, Entry] = {}
    clashes = []
    for row in rows:
        name, label, split = row["file_name"], row["label"], str(row.get("split") or "train").strip().lower()
        if name is None or label is None or not str(label).strip():
            raise UsageError(f"{manifest} has a row without file_name or label: {row}.")
        if split not in SPLIT_NAMES:
            unknown.add(split)
            continue
        group = row.get(group_column or "group")
        if group in (None, "") and (group_column or "group") in rows[0]:
            raise UsageError(f"{manifest} has a row without {group_column or 'group'}: {row}.")
        group = None if group is None else str(group).strip()
        entry = Entry(os.path.join(root, str(name)), str(label).strip(), SPLIT_NAMES[split], str(name), group)
        if not os.path.isfile(entry.path):
            absent.append(entry.file_name)
        before = seen.setdefault(entry.path, entry)
        if before is not entry and before.label != entry.label:
            clashes.append(f"{entry.file_name} ({before.label}, {entry.label})")
        entries.append(entry)
    for problem, found in (
        ("files that do not exist", absent),
        (f"splits of unknown names (known: {', '.join(SPLIT_NAMES)})", sorted(unknown)),
        ("files with two labels", clashes),
    ):
        if found:
            raise UsageError(f"{manifest} names {len(found)} {problem}: {listed(found, whole=True)}.")
    return entries
