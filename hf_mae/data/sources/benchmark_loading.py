"""Loads a benchmark (the archive and its official split) as a `DatasetDict`.

Images are found anywhere below the archive's folder, with any extension (users re-encode them), and joined with the
official split on a unique key: the file stem for HyperKvasir, whose class names differ from its folder names, and class
and stem for GastroVision, in which 24 file names occur in two to seven classes.
"""

import csv
import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from datasets import DatasetDict

from ...errors import UsageError
from ...files.caches import cache_folder
from ...files.downloads import download
from ..messages import DataMessage
from ..splits import SPLITS, stratified_mask
from .benchmark_files import Benchmark, SplitFile
from .benchmarks import find_benchmark
from .extraction import EXTRACTED_DIR, extract_archives
from .image_files import IMAGE_SUFFIXES
from .pairs import ImageKey, read_pair_keys
from .samples import ImageCheckFn, Sample, filter_valid_samples, join_names, samples_to_dataset

MAX_CLASSES = 8  # classes that a message about missing images lists


def fetch_split_file(split_file: SplitFile) -> Path:
    """Downloads an official split file once, checks its pinned SHA-256, and keeps it in the cache.

    Raises:
        UsageError: If it cannot be downloaded, or if the downloaded file is not the official one.
    """
    path = cache_folder() / "splits" / split_file.sha256[:16] / split_file.name
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


@dataclass
class SplitAssignment:
    """The row of an image in the official split.

    Args:
        label: its class.
        split: its split, or the number of its half.
        group: its patient or video; None if unknown.
        extra_columns: other columns that are kept.
    """

    label: str
    split: str | int
    group: str | None = None
    extra_columns: dict[str, str] = field(default_factory=dict)


def read_split_assignments(
    benchmark: Benchmark, split_files: list[str] | None, fold: int = 1, agreement: str | None = None
) -> tuple[dict[ImageKey, SplitAssignment], list[str]]:
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
    assignments: dict[ImageKey, SplitAssignment] = {}
    conflicting: dict[ImageKey, str] = {}
    for split_file in benchmark.split_files:
        if split_file.fold not in (None, fold):
            continue
        path = _find_local_copy(split_file, copies) if split_files else fetch_split_file(split_file)
        for name, assignment in _iter_assignments(benchmark, split_file, path, agreement):
            stem = Path(name).stem
            key = (assignment.label, stem) if benchmark.keyed_by_class else stem
            if key in assignments and assignments[key].label != assignment.label:
                conflicting[key] = name
            assignments[key] = assignment
    names = sorted(conflicting.values())
    if conflicting and benchmark.conflicting_labels == "error":
        raise UsageError(
            DataMessage.BENCHMARK_CONFLICTING_LABELS, title=benchmark.title, count=len(names), names=join_names(names)
        )
    return {key: assignment for key, assignment in assignments.items() if key not in conflicting}, names


def _iter_assignments(
    benchmark: Benchmark, split_file: SplitFile, path: Path, agreement: str | None
) -> Iterator[tuple[str, SplitAssignment]]:
    """Yields the file name and assignment of each row that has a label."""
    table, halves = benchmark.split_table, _half_by_group(benchmark)
    if table.format == "json by class":
        for label, names in json.loads(path.read_text(encoding="utf-8")).items():
            for name in names:
                group = _parse_group(benchmark, name)
                yield name, SplitAssignment(label, halves.get(group or "", split_file.split_or_half), group)
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
            group = row[table.group] if table.group else _parse_group(benchmark, row[table.name])
            split = table.splits.get(row[table.split], row[table.split]) if table.split else split_file.split_or_half
            extra_columns = {name: row[column] for name, column in table.columns.items()}
            split = halves.get(group or "", split)
            yield row[table.name], SplitAssignment(row[label_column], split, group, extra_columns)


def _parse_group(benchmark: Benchmark, name: str) -> str | None:
    if benchmark.group_pattern is None:
        return None
    match = re.search(benchmark.group_pattern, Path(name).stem)
    if match is None:
        raise UsageError(
            DataMessage.BENCHMARK_GROUP_NOT_FOUND, title=benchmark.title, name=name, pattern=benchmark.group_pattern
        )
    return match[1]


def _half_by_group(benchmark: Benchmark) -> dict[str, int]:
    return {group: number for number, groups in enumerate(benchmark.groups_by_half, 1) for group in groups}


def _find_local_copy(split_file: SplitFile, copies: dict[str, Path]) -> Path:
    """Finds the user's copy of an official split file, among copies by hash."""
    if split_file.sha256 in copies:
        return copies[split_file.sha256]
    for path in copies.values():
        if path.name == split_file.name:
            _check_hash(split_file, path.read_bytes(), path)
    raise UsageError(DataMessage.SPLIT_FILE_NOT_PASSED, name=split_file.name, url=split_file.url)


def find_benchmark_images(root: Path, benchmark: Benchmark) -> dict[ImageKey, list[str]]:
    """Finds all images below the archive's folder, by the key that the split uses; packed archives in it are extracted.

    Raises:
        UsageError: If no image is found.
    """
    paths_by_key: dict[ImageKey, list[str]] = defaultdict(list)
    for image_root in extract_archives(root):
        for folder, children, files in os.walk(image_root):
            children.sort()
            for name in sorted(files):
                if name.lower().endswith(IMAGE_SUFFIXES):
                    stem = Path(name).stem
                    key = (_class_from_folder(benchmark, folder), stem) if benchmark.keyed_by_class else stem
                    paths_by_key[key].append(os.path.join(folder, name))
    if not paths_by_key:
        raise UsageError(DataMessage.BENCHMARK_WITHOUT_FILES, root=root, homepage=benchmark.homepage)
    return _filter_image_folders(paths_by_key, benchmark)


def _class_from_folder(benchmark: Benchmark, path: str) -> str:
    """Returns the class of a folder; if it is not a class folder, its own name."""
    name = Path(path).name
    return next((label for label, folder in benchmark.folders.items() if folder == name), name)


def _filter_image_folders(paths_by_key: dict[ImageKey, list[str]], benchmark: Benchmark) -> dict[ImageKey, list[str]]:
    """Removes the copies in other folders, if the benchmark names its image folders."""
    wanted = set(benchmark.image_folders)
    inside = {key: [path for path in paths if wanted & set(Path(path).parts)] for key, paths in paths_by_key.items()}
    return {key: paths for key, paths in inside.items() if paths} if wanted and any(inside.values()) else paths_by_key


@dataclass
class BenchmarkData:
    """A benchmark as found in an archive."""

    splits: DatasetDict
    missing: list[str]  # images of the split that are not in the archive
    unused: dict[str, int]  # folder -> images that are in no split (other classes, unlabelled frames, excluded images)
    num_excluded: int  # images excluded by --exclude_pairs
    protocol: str | None  # the published split with the same counts, or None
    conflicting_labels: list[str] = field(default_factory=list)  # images with two labels in the split, excluded

    @property
    def matches_published(self) -> bool:
        """Whether the counts are those of a published split, or of all images without an official split."""
        return self.protocol is not None


def load_benchmark(
    name: str,
    data_dir: str | Path,
    *,
    fold: int = 1,
    val_fraction: float = 0.2,
    seed: int = 0,
    split_files: list[str] | None = None,
    exclude_pairs: str | Path | None = None,
    on_bad_image: str = "error",
    num_workers: int | None = None,
    agreement: str | None = None,
    check: ImageCheckFn | None = None,
) -> BenchmarkData:
    """Loads the official splits of a benchmark from its archive.

    Args:
        name: a key of `BENCHMARKS`, or a YAML file.
        data_dir: the archive's folder, a folder above or inside it, or the downloaded archive itself.
        fold: with two halves, fold 1 trains on the first and validates on the second, and fold 2 vice versa.
        val_fraction, seed: fraction that is held out (stratified, seeded) without an official split.
        split_files: copies of the official split files; None to download and cache them.
        exclude_pairs: CSV of pairs with conflicting labels; both images of each pair are excluded.
        on_bad_image: `error` stops at missing or unreadable images and lists them; `skip` excludes them.
        num_workers: threads that read the files.
        agreement: the annotators that have to agree on a label, if there are several; None for the benchmark's first.
        check: see `load_image_folder`.

    Raises:
        UsageError: If the files, the split or the options do not fit the benchmark.
    """
    benchmark = find_benchmark(name)
    root = Path(data_dir)
    if benchmark.folds and not 1 <= fold <= benchmark.folds:
        raise UsageError(DataMessage.BENCHMARK_UNKNOWN_FOLD, benchmark=name, folds=benchmark.folds, fold=fold)
    if agreement is not None and agreement not in benchmark.split_table.agreements:
        if not (agreements := benchmark.split_table.agreements):
            raise UsageError(DataMessage.BENCHMARK_WITHOUT_AGREEMENTS, benchmark=name, agreement=agreement)
        raise UsageError(
            DataMessage.BENCHMARK_UNKNOWN_AGREEMENT, benchmark=name, agreements=agreements, agreement=agreement
        )
    paths_by_key = find_benchmark_images(root, benchmark)
    conflicting_labels: list[str] = []
    if benchmark.split_files:
        assignments, conflicting_labels = read_split_assignments(benchmark, split_files, fold, agreement)
    elif benchmark.split_folders:
        paths_by_key, assignments = _assign_by_folder(benchmark, paths_by_key)
    else:
        assignments = _assign_random_split(benchmark, paths_by_key, val_fraction, seed)
    if benchmark.test_folder:
        assignments |= _assign_test_folder(benchmark, paths_by_key)
    excluded_keys = read_pair_keys(Path(exclude_pairs), benchmark.keyed_by_class) if exclude_pairs else set()
    joined = _join_files(benchmark, root, paths_by_key, assignments, excluded_keys, fold)
    if joined.missing and on_bad_image == "error":
        raise _missing_images_error(name, benchmark, root, joined)
    samples = filter_valid_samples(joined.samples, [], on_bad_image, num_workers, check_overlap=False, check=check)
    if not samples:
        raise UsageError(DataMessage.BENCHMARK_WITHOUT_IMAGES, root=root, benchmark=name, homepage=benchmark.homepage)
    by_split = {split: [sample for sample in samples if sample.split == split] for split in SPLITS}
    split_counts = Counter(sample.split for sample in samples)
    counts = dict(split_counts) if benchmark.has_split else {"all": len(samples)}
    return BenchmarkData(
        splits=DatasetDict(
            {s: samples_to_dataset(part, list(benchmark.classes)) for s, part in by_split.items() if part}
        ),
        missing=[name for names in joined.missing.values() for name in names],
        unused=_count_unused(root, paths_by_key, samples),
        num_excluded=joined.num_excluded,
        protocol=None
        if exclude_pairs
        else next((name for name in benchmark.protocols if benchmark.split_counts(fold, name) == counts), None),
        conflicting_labels=conflicting_labels,
    )


def _missing_images_error(name: str, benchmark: Benchmark, root: Path, joined: "_JoinedSplit") -> UsageError:
    """Builds the error for missing images, by class; if more than 10 % are missing, it asks for the full archive."""
    count = sum(map(len, joined.missing.values()))
    by_class = [f"{len(names)} of {label} ({names[0]})" for label, names in sorted(joined.missing.items())]
    attributes = {
        "root": root,
        "count": count,
        "benchmark": name,
        "names": join_names(sorted(name for names in joined.missing.values() for name in names)),
        "by_class": "; ".join(by_class[:MAX_CLASSES]) + ("; ..." if len(by_class) > MAX_CLASSES else ""),
    }
    if count > (count + len(joined.samples)) / 10:
        return UsageError(DataMessage.BENCHMARK_INCOMPLETE, homepage=benchmark.homepage, **attributes)
    return UsageError(DataMessage.BENCHMARK_MISSING_IMAGES, **attributes)


def _assign_by_folder(
    benchmark: Benchmark, paths_by_key: dict[ImageKey, list[str]]
) -> tuple[dict[ImageKey, list[str]], dict[ImageKey, SplitAssignment]]:
    """Returns images by their path, with the split and class of their folders."""
    by_path: dict[ImageKey, list[str]] = {}
    assignments: dict[ImageKey, SplitAssignment] = {}
    splits = {folder.lower(): split for folder, split in benchmark.split_folders.items()}
    classes = {benchmark.class_folder(name).lower(): name for name in benchmark.classes}
    for path in (path for paths in paths_by_key.values() for path in paths):
        parts = [part.lower() for part in Path(path).parts[:-1]]
        split = next((splits[part] for part in parts if part in splits), None)
        label = next((classes[part] for part in reversed(parts) if part in classes), None)
        by_path[path] = [path]
        if split and label:
            assignments[path] = SplitAssignment(label, split, extra_columns={"source": Path(path).parent.name})
    return by_path, assignments


def _assign_test_folder(
    benchmark: Benchmark, paths_by_key: dict[ImageKey, list[str]]
) -> dict[ImageKey, SplitAssignment]:
    """Returns the images of the test folder, by class folder."""
    classes = {benchmark.class_folder(name): name for name in benchmark.classes}
    assignments: dict[ImageKey, SplitAssignment] = {}
    for key, paths in paths_by_key.items():
        for path in paths:
            label = classes.get(Path(path).parent.name)
            if label and benchmark.test_folder in Path(path).parts:
                assignments[key] = SplitAssignment(label, "test", _parse_group(benchmark, path))
    if not assignments:
        raise UsageError(DataMessage.BENCHMARK_WITHOUT_TEST_FOLDER, folder=benchmark.test_folder)
    return assignments


def _assign_random_split(
    benchmark: Benchmark, paths_by_key: dict[ImageKey, list[str]], val_fraction: float, seed: int
) -> dict[ImageKey, SplitAssignment]:
    """Splits the images randomly (stratified, seeded), for benchmarks without an official split."""
    keys = [key for key in paths_by_key if key[0] in benchmark.classes]
    is_validation = stratified_mask([key[0] for key in keys], val_fraction, seed)
    return {key: SplitAssignment(key[0], "validation" if out else "train") for key, out in zip(keys, is_validation)}


@dataclass
class _JoinedSplit:
    """Images of an archive with their class and split."""

    samples: list[Sample]
    missing: dict[str, list[str]]  # images of the split that are not in the archive, by class
    num_excluded: int  # images in `excluded_keys`


def _join_files(
    benchmark: Benchmark,
    root: Path,
    paths_by_key: dict[ImageKey, list[str]],
    assignments: dict[ImageKey, SplitAssignment],
    excluded_keys: set[ImageKey],
    fold: int,
) -> _JoinedSplit:
    """Joins the official split with the files of the archive.

    Raises:
        UsageError: If the archive has two files for an image and neither is in the folder of its class.
    """
    joined, duplicates = _JoinedSplit([], {}, 0), []
    for key, assignment in assignments.items():
        label = assignment.label
        if label not in benchmark.classes:
            continue
        if key in excluded_keys:
            joined.num_excluded += 1
            continue
        paths = paths_by_key.get(key, [])
        if len(paths) > 1:  # the archive also contains copies (segmented images): use the one in the class folder
            paths = [path for path in paths if Path(path).parent.name == benchmark.class_folder(label)]
        if not paths:
            name = f"{benchmark.class_folder(label)}/{key if isinstance(key, str) else key[1]}"
            joined.missing.setdefault(label, []).append(name)
        elif len(paths) > 1:
            duplicates.append(", ".join(os.path.relpath(path, root) for path in paths))
        else:
            split = assignment.split
            if not isinstance(split, str):
                split = "train" if split == fold else "validation"
            file_name = _display_name(paths[0], root)
            joined.samples.append(Sample(paths[0], label, split, file_name, assignment.group, assignment.extra_columns))
    if duplicates:
        raise UsageError(
            DataMessage.BENCHMARK_DUPLICATE_IMAGES, root=root, count=len(duplicates), names=join_names(duplicates)
        )
    return joined


def _count_unused(root: Path, paths_by_key: dict[ImageKey, list[str]], samples: list[Sample]) -> dict[str, int]:
    """Counts the unused images of each folder."""
    used = {sample.path for sample in samples}
    unused = Counter(
        os.path.relpath(os.path.dirname(path), root)
        for paths in paths_by_key.values()
        for path in paths
        if path not in used
    )
    return dict(sorted(unused.items()))


def _display_name(path: str, root: Path) -> str:
    """Returns a path relative to the data folder, or to the root of the extracted archive."""
    name = Path(os.path.relpath(path, root)).as_posix()
    return name if not name.startswith("../") else Path(path).relative_to(_extraction_root(Path(path))).as_posix()


def _extraction_root(path: Path) -> Path:
    """Returns the folder to which the archive of an image was extracted."""
    return next(parent for parent in path.parents if parent.parent.name == EXTRACTED_DIR)
