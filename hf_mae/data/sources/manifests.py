"""CSV, TSV and JSON Lines manifests: `file_name`, `label`, optionally `split` and `group`."""

import logging
import os
from pathlib import Path
from typing import Any

from ...errors import UsageError, warn
from ..messages import DataMessage
from ..splits import SPLIT_NAMES, parse_split_name
from .samples import Sample, join_names
from .tables import TABLE_SUFFIXES, parse_label, read_table

logger = logging.getLogger(__name__)

MANIFEST_NAMES = tuple(f"{name}{suffix}" for name in ("manifest", "metadata") for suffix in TABLE_SUFFIXES)


def find_manifest(root: Path) -> Path | None:
    """Returns the path itself if it is a manifest, or else the manifest in the folder, or None."""
    if root.is_file() and root.suffix.lower() in TABLE_SUFFIXES:
        return root
    return next((root / name for name in MANIFEST_NAMES if (root / name).is_file()), None)


def resolve_manifest(source: Any) -> Path | None:
    """Returns the manifest of a data source, given or found in its folder, or None.

    Args:
        source: a command's `DataSourceArguments`, or a record's `DataSource`.
    """
    if source.manifest:
        return Path(source.manifest)
    return find_manifest(Path(source.data_dir)) if source.data_dir and not source.benchmark else None


def read_manifest(manifest: Path, root: Path, group_column: str | None = None) -> list[Sample]:
    """Reads a table with `file_name`, `label`, optionally `split` and `group`; file names are relative to `root`.

    A file in several rows, also with different spellings of its path, is one image.

    Raises:
        UsageError: If a column is missing, or if rows are invalid or contradictory; all affected rows are listed.
    """
    rows = read_table(manifest)
    needed = ("file_name", "label", *([group_column] if group_column else []))
    if missing := [column for column in needed if column not in rows[0]]:
        raise UsageError(DataMessage.COLUMNS_MISSING, path=manifest, columns=missing, existing=list(rows[0]))
    unknown = sorted({_get_split_text(row) for row in rows if parse_split_name(_get_split_text(row)) is None})
    has_groups = (group_column or "group") in rows[0]
    samples = [
        _make_sample(f"{manifest}, row {number}", root, row, group_column or "group", has_groups)
        for number, row in enumerate(rows, 1)
        if _get_split_text(row) not in unknown
    ]
    if absent := [sample.file_name for sample in samples if not os.path.isfile(sample.path)]:
        names = join_names(absent, show_all=True)
        raise UsageError(DataMessage.MANIFEST_FILES_NOT_FOUND, manifest=manifest, count=len(absent), names=names)
    if unknown:
        raise UsageError(DataMessage.UNKNOWN_SPLIT_NAMES, source=manifest, unknown=unknown, known=SPLIT_NAMES)
    return _deduplicate(samples, manifest)


def _get_split_text(row: dict[str, Any]) -> str:
    return str(row.get("split") or "train").strip().lower()


def _make_sample(location: str, root: Path, row: dict[str, Any], group_column: str, has_groups: bool) -> Sample:
    name, group = row.get("file_name"), row.get(group_column)
    if not isinstance(name, str) or not name.strip():
        raise UsageError(DataMessage.MANIFEST_VALUE_MISSING, location=location, column="file_name", row=row)
    if has_groups and group in (None, ""):
        raise UsageError(DataMessage.MANIFEST_VALUE_MISSING, location=location, column=group_column, row=row)
    return Sample(
        path=os.path.normpath(os.path.join(root, name)),
        label=parse_label(row.get("label"), f"{location}, label"),
        split=parse_split_name(_get_split_text(row)) or "train",
        file_name=Path(os.path.normpath(name)).as_posix(),
        group=parse_label(group, f"{location}, {group_column}") if has_groups else None,
    )


def _deduplicate(samples: list[Sample], manifest: Path) -> list[Sample]:
    """Removes repeated samples of the same file.

    Raises:
        UsageError: If a file has rows with different labels, splits or groups.
    """
    first_by_path: dict[str, Sample] = {}
    conflicts: dict[str, list[str]] = {"labels": [], "splits": [], "groups": []}
    for sample in samples:
        first = first_by_path.setdefault(os.path.realpath(sample.path), sample)
        for column, first_value, value in (
            ("labels", first.label, sample.label),
            ("splits", first.split, sample.split),
            ("groups", first.group, sample.group),
        ):
            if first_value != value:
                conflicts[column].append(f"{sample.file_name} ({first_value}, {value})")
    for column, conflicting in conflicts.items():
        if conflicting:
            raise UsageError(
                DataMessage.MANIFEST_CONTRADICTORY,
                manifest=manifest,
                count=len(conflicting),
                column=column,
                names=join_names(conflicting, show_all=True),
            )
    repeated = [s.file_name for s in samples if first_by_path[os.path.realpath(s.path)] is not s]
    if repeated:
        names = join_names(repeated)
        warn(logger, DataMessage.MANIFEST_FILES_REPEATED, manifest=manifest, count=len(repeated), names=names)
    return list(first_by_path.values())
