"""Official splits of benchmarks: tables that are downloaded once and checked by their hash."""

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import UsageError
from ...files.caches import cache_path
from ...files.downloads import download
from ...settings.benchmarks import Benchmark, SplitFile
from ..messages import DataMessage
from .samples import join_names

ImageKey = str | tuple[str, str]


@dataclass
class OfficialRow:
    """The row of an image in the official split.

    Args:
        label: its class.
        split: its split, or the number of its half.
        group: its patient or video; None if unknown.
        extra_columns: other columns that are kept.
    """

    label: str
    split: str
    group: str | None = None
    extra_columns: dict[str, str] = field(default_factory=dict)


def fetch_split_file(split_file: SplitFile) -> Path:
    """Downloads an official split file once, checks its pinned SHA-256, and keeps it in the cache.

    Raises:
        UsageError: If it cannot be downloaded, or if the downloaded file is not the official one.
    """
    path = cache_path(f"splits/{split_file.sha256[:16]}/{split_file.name}")
    if not path.is_file():
        unchecked = path.with_name(f"unchecked-{split_file.name}")
        download(split_file.url, unchecked, f"Download it from {split_file.url} and pass it with --split_file.")
        try:
            _check_hash(split_file, unchecked.read_bytes(), split_file.url)
            unchecked.replace(path)
        finally:
            unchecked.unlink(missing_ok=True)
    return path


def _check_hash(split_file: SplitFile, content: bytes, location: str | Path) -> None:
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != split_file.sha256:
        raise UsageError(
            DataMessage.SPLIT_FILE_CHANGED,
            location=location,
            name=split_file.name,
            sha256=sha256[:12],
            expected=split_file.sha256[:12],
            url=split_file.url,
        )


def read_official_rows(
    benchmark: Benchmark, split_files: Sequence[str] | None, fold: int = 1, agreement: str | None = None
) -> tuple[dict[ImageKey, OfficialRow], list[str]]:
    """Reads the row of the official split by image key, and the names of the images with two labels, which are
    excluded.

    Args:
        split_files: the user's copies (`--split_file`), matched by their hash; None to download them.
        fold: the fold, if folds have files of their own.
        agreement: the label column, if there are several.

    Raises:
        UsageError: If a file is missing or was changed, or if images have two labels and the benchmark does not exclude
            such images.
    """
    copies = {}
    for name in split_files or []:
        path = Path(name)
        if not path.is_file():
            raise UsageError(DataMessage.SPLIT_FILE_NOT_FOUND, path=path)
        copies[hashlib.sha256(path.read_bytes()).hexdigest()] = path
    rows: dict[ImageKey, OfficialRow] = {}
    conflicting: dict[ImageKey, str] = {}
    for split_file in benchmark.split_files:
        if split_file.fold not in (None, fold):
            continue
        path = _find_local_copy(split_file, copies) if split_files else fetch_split_file(split_file)
        for name, row in _iter_rows(benchmark, split_file, path, agreement):
            stem = Path(name).stem
            key = (row.label, stem) if benchmark.keyed_by_class else stem
            if key in rows and rows[key].label != row.label:
                conflicting[key] = name
            rows[key] = row
    names = sorted(conflicting.values())
    if conflicting and benchmark.conflicting_labels == "error":
        raise UsageError(
            DataMessage.BENCHMARK_CONFLICTING_LABELS, title=benchmark.title, count=len(names), names=join_names(names)
        )
    return {key: row for key, row in rows.items() if key not in conflicting}, names


def _iter_rows(
    benchmark: Benchmark, split_file: SplitFile, path: Path, agreement: str | None
) -> Iterator[tuple[str, OfficialRow]]:
    """Yields the file name and the row of each image that has a label."""
    table, halves = benchmark.split_table, _half_by_group(benchmark)
    if table.format == "json by class":
        for label, names in json.loads(path.read_text(encoding="utf-8")).items():
            for name in names:
                group = parse_group(benchmark, name)
                yield name, OfficialRow(label, halves.get(group or "", split_file.split or "train"), group)
        return
    label_column = table.label_column(agreement)
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=table.delimiter)
        existing = reader.fieldnames or ()
        needed = (table.name, label_column, table.split, table.group, *table.columns.values())
        if missing := [name for name in needed if name and name not in existing]:
            raise UsageError(DataMessage.COLUMNS_MISSING, path=path, columns=missing, existing=existing)
        for row in reader:
            if not row[label_column]:
                continue
            group = row[table.group] if table.group else parse_group(benchmark, row[table.name])
            split = table.splits.get(row[table.split], row[table.split]) if table.split else split_file.split or "train"
            extra_columns = {name: row[column] for name, column in table.columns.items()}
            split = halves.get(group or "", split)
            yield row[table.name], OfficialRow(row[label_column], split, group, extra_columns)


def parse_group(benchmark: Benchmark, name: str) -> str | None:
    """Returns the patient or video in the name of an image; None if the benchmark has no pattern of names."""
    if benchmark.group_pattern is None:
        return None
    match = re.search(benchmark.group_pattern, Path(name).stem)
    if match is None:
        raise UsageError(
            DataMessage.BENCHMARK_GROUP_NOT_FOUND, title=benchmark.title, name=name, pattern=benchmark.group_pattern
        )
    return match[1]


def _half_by_group(benchmark: Benchmark) -> dict[str, str]:
    return {group: str(number) for number, groups in enumerate(benchmark.groups_by_half, 1) for group in groups}


def _find_local_copy(split_file: SplitFile, copies: dict[str, Path]) -> Path:
    """Finds the user's copy of an official split file, among copies by hash."""
    if split_file.sha256 in copies:
        return copies[split_file.sha256]
    for path in copies.values():
        if path.name == split_file.name:
            _check_hash(split_file, path.read_bytes(), path)
    raise UsageError(DataMessage.SPLIT_FILE_NOT_PASSED, name=split_file.name, url=split_file.url)
