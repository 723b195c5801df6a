"""CSV, TSV and JSON lines manifests: `file_name`, `label`, perhaps `split` and `group`."""

import logging
import os
from pathlib import Path
from typing import Any

from ..errors import UsageError, counted
from .entries import Entry, listed
from .splits import SPLIT_NAMES, split_named
from .tables import TABLE_SUFFIXES, label_text, read_table

logger = logging.getLogger(__name__)

MANIFEST_NAMES = tuple(f"{name}{suffix}" for name in ("manifest", "metadata") for suffix in TABLE_SUFFIXES)


def find_manifest(root: Path) -> Path | None:
    """The manifest that a path is, or that a folder holds."""
    if root.is_file() and root.suffix.lower() in TABLE_SUFFIXES:
        return root
    return next((root / name for name in MANIFEST_NAMES if (root / name).is_file()), None)


def manifest_of(source: Any) -> Path | None:
    """The manifest that images are of, given or found; None: there is none.

    Args:
        source: a verb's `DataSourceArguments`, or a record's `DataSource`.
    """
    if source.manifest:
        return Path(source.manifest)
    return find_manifest(Path(source.data_dir)) if source.data_dir and not source.benchmark else None


def read_manifest(manifest: Path, root: Path, group_column: str | None = None) -> list[Entry]:
    """Rows of a table with `file_name`, `label`, perhaps `split` and `group`; names are relative to `root`.

    A file that stands in several rows, also under several spellings of its path, is one image.

    Raises:
        UsageError: a column is missing, or rows are not understood or contradict each other; all of these are listed.
    """
    rows = read_table(manifest)
    needed = ("file_name", "label", *([group_column] if group_column else []))
    if missing := [column for column in needed if column not in rows[0]]:
        raise UsageError(f"{manifest} lacks the column {', '.join(missing)}; it has {', '.join(map(str, rows[0]))}.")
    unknown = sorted({_split_word(row) for row in rows if split_named(_split_word(row)) is None})
    has_groups = (group_column or "group") in rows[0]
    entries = [
        _entry(f"{manifest}, row {number},", root, row, group_column or "group", has_groups)
        for number, row in enumerate(rows, 1)
        if _split_word(row) not in unknown
    ]
    for problem, found in (
        ("files that do not exist", [entry.file_name for entry in entries if not os.path.isfile(entry.path)]),
        (f"splits of unknown names (known: {', '.join(SPLIT_NAMES)})", unknown),
    ):
        if found:
            raise UsageError(f"{manifest} names {len(found)} {problem}: {listed(found, whole=True)}.")
    return _each_once(entries, manifest)


def _split_word(row: dict[str, Any]) -> str:
    return str(row.get("split") or "train").strip().lower()


def _entry(where: str, root: Path, row: dict[str, Any], group_column: str, has_groups: bool) -> Entry:
    """A row as an image."""
    name, group = row.get("file_name"), row.get(group_column)
    if not isinstance(name, str) or not name.strip():
        raise UsageError(f"{where} has no file_name: {row}.")
    if has_groups and group in (None, ""):
        raise UsageError(f"{where} has no {group_column}: {row}.")
    return Entry(
        path=os.path.normpath(os.path.join(root, name)),
        label=label_text(row.get("label"), where),
        split=split_named(_split_word(row)) or "train",
        file_name=Path(os.path.normpath(name)).as_posix(),
        group=label_text(group, f"{where} as {group_column},") if has_groups else None,
    )


def _each_once(entries: list[Entry], manifest: Path) -> list[Entry]:
    """One entry for each file.

    Raises:
        UsageError: rows give a file two labels, splits or groups.
    """
    first: dict[str, Entry] = {}
    clashes: dict[str, list[str]] = {"labels": [], "splits": [], "groups": []}
    for entry in entries:
        before = first.setdefault(os.path.realpath(entry.path), entry)
        for kind, one, other in (
            ("labels", before.label, entry.label),
            ("splits", before.split, entry.split),
            ("groups", before.group, entry.group),
        ):
            if one != other:
                clashes[kind].append(f"{entry.file_name} ({one}, {other})")
    for kind, found in clashes.items():
        if found:
            raise UsageError(
                f"{manifest} names {counted(len(found), 'file')} with two {kind}: {listed(found, whole=True)}."
            )
    if more := len(entries) - len(first):
        again = [entry.file_name for entry in entries if first[os.path.realpath(entry.path)] is not entry]
        logger.warning("%s names %s twice (%s): each counts once.", manifest, counted(more, "file"), listed(again))
    return list(first.values())
