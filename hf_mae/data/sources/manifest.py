"""CSV, TSV and JSON Lines manifests: `file_name`, `label`, optionally `split` and `group`."""

import logging
import os
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from ...errors import UsageError, warn
from ...files.frame_names import file_of_frame
from ..messages import DataMessage
from .image_files import MANIFEST_NAMES, TABLE_SUFFIXES
from .kinds import Samples, SourceKind, SourceOptions
from .location import TEXT, Location
from .samples import build_path_dataset, join_names
from .tables import find_group_column, find_split_columns, parse_label, posix_paths

logger = logging.getLogger(__name__)

NEEDED_COLUMNS = ("file_name", "label")


def find_manifests(location: Location, options: SourceOptions) -> list[Path]:
    """Returns the manifests of a source: the given one, the location itself, the one in a folder, or those in its
    subfolders that have the columns of a manifest. Each table is read once."""
    if options.manifest:
        return [Path(options.manifest)]
    if location.exists and not location.is_folder:
        return [location.path] if _is_manifest_file(location) else []
    if not location.is_folder:
        return []
    paths = [location.path / name for name in MANIFEST_NAMES if (location.path / name).is_file()]
    if paths:
        return [path for path in paths if len(paths) > 1 and _has_manifest_columns(location, path)] or paths[:1]
    paths = [location.path / name for name in location.tree.manifests]
    return [path for path in paths if _has_manifest_columns(location, path)]


def _is_manifest_file(location: Location) -> bool:
    is_named = location.path.suffix.lower() in TABLE_SUFFIXES
    return is_named or (location.file_type == TEXT and b"file_name" in location.head)


def _has_manifest_columns(location: Location, path: Path) -> bool:
    return set(NEEDED_COLUMNS) <= set().union(*location.read_table(path))


def resolve_manifest(source: Any) -> Path | None:
    """Returns the manifest of a data source, given or found in its folder, or None.

    Args:
        source: a command's `DataSourceArguments`, or a record's `DataSource`.
    """
    if source.benchmark or not (source.manifest or source.data_dir):
        return None
    found = find_manifests(Location(str(source.data_dir or "")), SourceOptions(manifest=source.manifest))
    return found[0] if len(found) == 1 else None


def _matches(location: Location, options: SourceOptions) -> bool:
    return bool(find_manifests(location, options)) and (options.labelled or not location.is_folder)


def _read(location: Location, options: SourceOptions) -> Samples:
    if options.class_level is not None:
        raise UsageError(DataMessage.CLASS_LEVEL_WITH_MANIFEST)
    manifests = find_manifests(location, options)
    if len({manifest.parent for manifest in manifests}) < len(manifests):
        raise UsageError(DataMessage.SEVERAL_MANIFESTS, root=location.uri, names=[path.name for path in manifests])
    root = location.path if location.is_folder else manifests[0].parent
    rows: dict[str, _Row] = {}
    for manifest in manifests:
        folder = root if options.manifest or manifest.parent == root else manifest.parent
        rows |= _read_rows(location.read_table(manifest), manifest, root, folder, options)
    listed = list(rows.values())
    excluded = (
        _count_unlisted(location, manifests, listed) if location.is_folder and not options.manifest else Counter()
    )
    names = dict.fromkeys(chain(["label"], chain.from_iterable(row.stated for row in listed)))
    stated = {
        name: partial(lambda name: [row.stated.get(name) for row in listed], name)
        for name in names
        if name == "label" or any(row.stated.get(name) is not None for row in listed)
    }
    return Samples(
        build_path_dataset([row.path for row in listed], [row.file_name for row in listed]),
        paths=lambda: posix_paths([row.path_below_root for row in listed]),
        stated=stated,
        locate=lambda row, column: f"{listed[row].location}, {column}",
        excluded=excluded,
        manifest=manifests[0] if len(manifests) == 1 else None,
        labels_required=True,
    )


def _count_unlisted(location: Location, manifests: list[Path], listed: "list[_Row]") -> "Counter[str]":
    """Counts the images below a folder that its manifests do not list.

    Raises:
        UsageError: If the manifests are in subfolders, and other subfolders with images have none.
    """
    unlisted = sorted(set(location.tree.images) - {row.file_name for row in listed})
    folders = {manifest.parent for manifest in manifests}
    outside = [name for name in unlisted if folders.isdisjoint((location.path / name).parents)]
    if outside:
        raise UsageError(
            DataMessage.MANIFESTS_IN_PART,
            root=location.uri,
            manifest=manifests[0],
            count=len(outside),
            example=outside[0],
        )
    unlisted_count = Counter({f"images that are not in {manifests[0].name}": len(unlisted)})
    return location.tree.ignored_counts + unlisted_count


@dataclass(frozen=True)
class _Row:
    """A row of a manifest.

    Args:
        location: of the row, for messages.
        path: of the image.
        file_name: relative to the root.
        path_below_root: `file_name`, or an absolute path if the manifest names one that is not below the root.
        stated: values of `label`, `group` and the columns of splits (None: no such column, or an empty cell).
    """

    location: str
    path: str
    file_name: str
    path_below_root: str
    stated: dict[str, Any]


def _read_rows(
    table: list[dict[str, Any]], manifest: Path, root: Path, folder: Path, options: SourceOptions
) -> "dict[str, _Row]":
    """Reads the rows of a manifest by the real path of the image.

    Args:
        table: its rows; file names are relative to `folder`.
        manifest: its file.
        root: the folder to which the file names of the result are relative.
        folder: the folder of the manifest.
        options: options of the source.

    Raises:
        UsageError: If a column is missing, or if rows are invalid or contradictory; all affected rows are listed.
    """
    needed = NEEDED_COLUMNS if options.labelled else NEEDED_COLUMNS[:1]
    needed = (*needed, *([options.group_column] if options.group_column else []))
    existing = list(dict.fromkeys(chain.from_iterable(table)))  # rows of JSON Lines may have different columns
    if missing := [column for column in needed if column not in existing]:
        raise UsageError(DataMessage.COLUMNS_MISSING, path=manifest, columns=missing, existing=existing)
    cells = {name: partial(lambda name: (values.get(name) for values in table), name) for name in existing}
    group_column = find_group_column(cells, options.group_column, manifest)
    columns = {name: name for name in find_split_columns(cells, ("file_name", "label", "group", group_column))}
    columns |= {"label": "label"} | ({"group": group_column} if group_column else {})
    rows = []
    for number, values in enumerate(table, 1):
        location, name = f"{manifest}, row {number}", values.get("file_name")
        if not isinstance(name, str) or not name.strip():
            raise UsageError(DataMessage.MANIFEST_VALUE_MISSING, location=location, column="file_name", row=values)
        if group_column and values.get(group_column) in (None, ""):
            raise UsageError(DataMessage.MANIFEST_VALUE_MISSING, location=location, column=group_column, row=values)
        if "\\" in name and not os.path.lexists(os.path.join(folder, file_of_frame(name))):
            name = name.replace("\\", "/")  # written on Windows
        path = os.path.normpath(os.path.join(folder, name))
        is_relative = folder == root and not os.path.isabs(name)
        shown = Path(os.path.normpath(name) if is_relative else os.path.relpath(path, root)).as_posix()
        is_outside = os.path.isabs(name) and shown.startswith("../")
        stated = {key: values.get(column) for key, column in columns.items()}
        rows.append(_Row(location, path, shown, Path(path).as_posix() if is_outside else shown, stated))
    if absent := [row.file_name for row in rows if not os.path.isfile(file_of_frame(row.path))]:
        names = join_names(absent, show_all=True)
        raise UsageError(DataMessage.MANIFEST_FILES_NOT_FOUND, manifest=manifest, count=len(absent), names=names)
    return _deduplicate(rows, manifest)


def _deduplicate(rows: list[_Row], manifest: Path) -> dict[str, _Row]:
    """Removes repeated rows of the same file.

    Raises:
        UsageError: If a file has rows with different labels, splits or groups.
    """
    first_by_path: dict[str, _Row] = {}
    conflicts: dict[str, list[str]] = {}
    repeated: list[str] = []
    for row in rows:
        first = first_by_path.setdefault(os.path.realpath(row.path), row)
        if first is row:
            continue
        repeated.append(row.file_name)
        for column in row.stated:
            values = [_parse_or_empty(item.stated.get(column), item.location, column) for item in (first, row)]
            if values[0] != values[1]:
                conflicts.setdefault(column, []).append(f"{row.file_name} ({values[0]}, {values[1]})")
    for column, names in conflicts.items():
        raise UsageError(
            DataMessage.MANIFEST_CONTRADICTORY,
            manifest=manifest,
            count=len(names),
            column=f"{column}s",
            names=join_names(names, show_all=True),
        )
    if repeated:
        shown = join_names(repeated)
        warn(logger, DataMessage.MANIFEST_FILES_REPEATED, manifest=manifest, count=len(repeated), names=shown)
    return first_by_path


def _parse_or_empty(value: Any, location: str, column: str) -> str:
    return "" if value in (None, "") else parse_label(value, f"{location}, {column}")


MANIFEST = SourceKind(_matches, _read)
