"""CSV, TSV and JSON lines manifests: `file_name`, `label`, perhaps `split` and `group`."""

import logging
import os
from pathlib import Path
from typing import Any

from ..errors import UsageError, pluralize
from .samples import Sample, join_names
from .splits import SPLIT_NAMES, parse_split_name
from .tables import TABLE_SUFFIXES, parse_label, read_table

logger = logging.getLogger(__name__)

MANIFEST_NAMES = tuple(f"{name}{suffix}" for name in ("manifest", "metadata") for suffix in TABLE_SUFFIXES)


def find_manifest(root: Path) -> Path | None:
    """The manifest that a path is, or that a folder holds."""
    if root.is_file() and root.suffix.lower() in TABLE_SUFFIXES:
        return root
    return next((root / name for name in MANIFEST_NAMES if (root / name).is_file()), None)


def resolve_manifest(source: Any) -> Path | None:
    """The manifest that images are of, given or found; None: there is none.

    Args:
        source: a verb's `DataSourceArguments`, or a record's `DataSource`.
    """
    if source.manifest:
        return Path(source.manifest)
    return find_manifest(Path(source.data_dir)) if source.data_dir and not source.benchmark else None


def read_manifest(manifest: Path, root: Path, group_column: str | None = None) -> list[Sample]:
    """Rows of a table with `file_name`, `label`, perhaps `split` and `group`; names are relative to `root`.

    A file that stands in several rows, also under several spellings of its path, is one image.

    Raises:
        UsageError: a column is missing, or rows are not understood or contradict each other; all of these are listed.
    """
    rows = read_table(manifest)
    needed = ("file_name", "label", *([group_column] if group_column else []))
    if missing := [column for column in needed if column not in rows[0]]:
        raise UsageError(f"{manifest} lacks the column {', '.join(missing)}; it has {', '.join(map(str, rows[0]))}.")
    unknown = sorted({_get_split_text(row) for row in rows if parse_split_name(_get_split_text(row)) is None})
    has_groups = (group_column or "group") in rows[0]
    entries = [
        _make_sample(f"{manifest}, row {number},", root, row, group_column or "group", has_groups)
        for number, row in enumerate(rows, 1)
        if _get_split_text(row) not in unknown
    ]
    for problem, found in (
        ("files that do not exist", [entry.file_name for entry in entries if not os.path.isfile(entry.path)]),
        (f"splits of unknown names (known: {', '.join(SPLIT_NAMES)})", unknown),
    ):
        if found:
            raise UsageError(f"{manifest} names {len(found)} {problem}: {join_names(found, show_all=True)}.")
    return _deduplicate(entries, manifest)


def _get_split_text(row: dict[str, Any]) -> str:
    return str(row.get("split") or "train").strip().lower()


def _make_sample(location: str, root: Path, row: dict[str, Any], group_column: str, has_groups: bool) -> Sample:
    """A row as an image."""
    name, group = row.get("file_name"), row.get(group_column)
    if not isinstance(name, str) or not name.strip():
        raise UsageError(f"{location} has no file_name: {row}.")
    if has_groups and group in (None, ""):
        raise UsageError(f"{location} has no {group_column}: {row}.")
    return Sample(
        path=os.path.normpath(os.path.join(root, name)),
        label=parse_label(row.get("label"), location),
        split=parse_split_name(_get_split_text(row)) or "train",
        file_name=Path(os.path.normpath(name)).as_posix(),
        group=parse_label(group, f"{location} as {group_column},") if has_groups else None,
    )


def _deduplicate(samples: list[Sample], manifest: Path) -> list[Sample]:
    """One entry for each file.

    Raises:
        UsageError: rows give a file two labels, splits or groups.
    """
    first: dict[str, Sample] = {}
    clashes: dict[str, list[str]] = {"labels": [], "splits": [], "groups": []}
    for entry in samples:
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
                f"{manifest} names {pluralize(len(found), 'file')} with two {kind}: {join_names(found, show_all=True)}."
            )
    if more := len(samples) - len(first):
        again = [entry.file_name for entry in samples if first[os.path.realpath(entry.path)] is not entry]
        logger.warning(
            "%s names %s twice (%s): each counts once.", manifest, pluralize(more, "file"), join_names(again)
        )
    return list(first.values())
