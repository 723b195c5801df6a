"""Rows of images: columns of a manifest, or of the official split of a benchmark."""

from pathlib import Path
from typing import Any

from ..data.sources.manifest import resolve_manifest
from ..data.sources.official_split import fetch_split_file
from ..data.sources.tables import read_table
from ..errors import UsageError
from ..runs.completed_run import CompletedRun
from ..runs.image_names import match_names
from ..settings.benchmarks import find_benchmark_or_none
from .messages import ReportingMessage

Row = dict[str, Any]


def read_image_rows(manifest: Path | None, benchmark: str | None, source_name: str) -> dict[str, Row]:
    """Reads the rows of a manifest, or of the official split of a benchmark, by file name.

    Rows of an official split also have the columns `file_name`, `group` and those of `Benchmark.split_table`.

    Raises:
        UsageError: If the table is missing, or if it has no column `file_name`.
    """
    entry = find_benchmark_or_none(benchmark)
    paths = [manifest] if manifest else []
    if entry and not manifest and entry.split_table.format == "csv":
        paths = [fetch_split_file(file) for file in entry.split_files]
    if not paths or not all(path.is_file() for path in paths):
        raise UsageError(ReportingMessage.NO_MANIFEST, folder=source_name)
    rows = [row for path in paths for row in read_table(path)]
    if entry and "file_name" not in rows[0] and entry.split_table.name in rows[0]:
        table = entry.split_table
        titles = {"file_name": table.name, **({"group": table.group} if table.group else {}), **table.columns}
        rows = [row | {title: row[column] for title, column in titles.items()} for row in rows]
    if "file_name" not in rows[0]:
        raise UsageError(ReportingMessage.NO_FILE_NAME_COLUMN, path=paths[0], names=list(rows[0]))
    return {str(row["file_name"]): row for row in rows}


def read_rows_of_run(run: CompletedRun, manifest: Path | None, all_images: bool = True) -> dict[str, Row]:
    """Reads the rows of the images of a run, by their file names in the run.

    Raises:
        UsageError: If no image has a row or, with `all_images`, if an image has none.
    """
    if manifest is None and run.source is not None:
        manifest = resolve_manifest(run.source)
    by_file = read_image_rows(manifest, run.data, str(run.folder))
    files = list(dict.fromkeys(name for fold in run.file_names for name in fold))
    match, in_order = match_names(list(by_file), files), list(by_file.values())
    missing = sorted(match.missing)
    if missing and (all_images or not match.positions):
        raise UsageError(
            ReportingMessage.IMAGES_WITHOUT_ROW,
            path=manifest,
            missing=len(missing),
            total=len(files),
            folder=run.folder,
            example=missing[0],
        )
    return {name: in_order[position] for name, position in match.positions.items()}
