"""A benchmark's archive and its official split -> a `DatasetDict`.

Image files are found anywhere below the archive's folder, whatever their extension (people re-encode), and joined with
the official split on the key that is unique: the file's stem for HyperKvasir, whose class names differ from its
folders', and class and stem for GastroVision, where 51 file names occur in two classes.
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

from ..errors import UsageError, pluralize
from ..files.caches import cache_folder
from ..files.downloads import download
from .benchmarks import Benchmark, SplitFile, find_benchmark
from .extraction import EXTRACTED_DIR, extract_archives
from .image_files import IMAGE_SUFFIXES
from .pairs import ImageKey, read_pair_keys
from .samples import ImageCheckFn, Sample, filter_valid_samples, join_names, samples_to_dataset
from .splits import SPLITS
from .splitting import stratified_mask


def fetch_split_file(split_file: SplitFile) -> Path:
    """The official CSV, downloaded once, checked against its pinned SHA-256 and kept in the cache.

    Raises:
        UsageError: there is no network (it says which file to get from where), or the file is another one.
    """
    path = cache_folder() / "splits" / split_file.sha256[:16] / split_file.name
    if not path.is_file():
        fresh = path.with_name(f"unchecked-{split_file.name}")
        download(split_file.url, fresh, f"get it from {split_file.url} and pass it with --split_file.")
        try:
            _check_hash(split_file, fresh.read_bytes(), split_file.url)
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
    return path


def _check_hash(split_file: SplitFile, content: bytes, location: str | Path) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != split_file.sha256:
        raise UsageError(
            f"{location} is not the official {split_file.name} (SHA-256 {found[:12]}..., expected "
            f"{split_file.sha256[:12]}...): it was edited or changed; get the original from {split_file.url}."
        )


@dataclass
class SplitAssignment:
    """What the official split says of an image.

    Args:
        label: its class.
        split: its split, or the number of its half.
        group: patient or video; None: not known.
        extra_columns: columns that are kept.
    """

    label: str
    split: str | int
    group: str | None = None
    extra_columns: dict[str, str] = field(default_factory=dict)


def read_split_assignments(
    benchmark: Benchmark, split_files: list[str] | None, fold: int = 1, agreement: str | None = None
) -> tuple[dict[ImageKey, SplitAssignment], list[str]]:
    """Key of an image -> what the official split says of it; and the names of images with two labels, left out.

    Args:
        split_files: the user's copies (`--split_file`), matched by their hash; None: downloaded.
        fold: whose files are read, where folds have files of their own.
        agreement: which of several labels.

    Raises:
        UsageError: a file is missing or another one, or images have two labels that no rule leaves out.
    """
    copies = {}
    for name in split_files or []:
        path = Path(name)
        if not path.is_file():
            raise UsageError(f"The split file {path} does not exist.")
        copies[hashlib.sha256(path.read_bytes()).hexdigest()] = path
    assigned: dict[ImageKey, SplitAssignment] = {}
    twice: dict[ImageKey, str] = {}
    for split_file in benchmark.split_files:
        if split_file.fold not in (None, fold):
            continue
        path = _find_local_copy(split_file, copies) if split_files else fetch_split_file(split_file)
        for name, found in _iter_assignments(benchmark, split_file, path, agreement):
            stem = Path(name).stem
            key = (found.label, stem) if benchmark.keyed_by_class else stem
            if key in assigned and assigned[key].label != found.label:
                twice[key] = name
            assigned[key] = found
    if twice and benchmark.conflicting_labels == "error":
        raise UsageError(
            f"{benchmark.title} gives {pluralize(len(twice), 'image')} two labels: {join_names(sorted(twice.values()))}."
        )
    return {key: found for key, found in assigned.items() if key not in twice}, sorted(twice.values())


def _iter_assignments(
    benchmark: Benchmark, split_file: SplitFile, path: Path, agreement: str | None
) -> Iterator[tuple[str, SplitAssignment]]:
    """File name and assignment of every row that has a label."""
    table, halves = benchmark.split_table, _half_by_group(benchmark)
    if table.format == "json by class":
        for label, names in json.loads(path.read_text(encoding="utf-8")).items():
            for name in names:
                group = _parse_group(benchmark, name)
                yield name, SplitAssignment(label, halves.get(group or "", split_file.split_or_half), group)
        return
    column = table.label_column(agreement)
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=table.delimiter)
        needed = [table.name, column, *([table.split] if table.split else []), *([table.group] if table.group else [])]
        if lacking := [name for name in (*needed, *table.columns.values()) if name not in (reader.fieldnames or ())]:
            raise UsageError(
                f"{path} lacks the column {', '.join(lacking)}; it has {', '.join(reader.fieldnames or ())}."
            )
        for row in reader:
            if not row[column]:
                continue
            group = row[table.group] if table.group else _parse_group(benchmark, row[table.name])
            where = table.splits.get(row[table.split], row[table.split]) if table.split else split_file.split_or_half
            more = {name: row[theirs] for name, theirs in table.columns.items()}
            yield row[table.name], SplitAssignment(row[column], halves.get(group or "", where), group, more)


def _parse_group(benchmark: Benchmark, name: str) -> str | None:
    if benchmark.group_pattern is None:
        return None
    found = re.search(benchmark.group_pattern, Path(name).stem)
    if found is None:
        raise UsageError(f"{benchmark.title}: {name} does not tell its patient or video ({benchmark.group_pattern}).")
    return found[1]


def _half_by_group(benchmark: Benchmark) -> dict[str, int]:
    return {group: number for number, groups in enumerate(benchmark.groups_by_half, 1) for group in groups}


def _find_local_copy(split_file: SplitFile, copies: dict[str, Path]) -> Path:
    """The user's copy of an official CSV, of copies by their hash."""
    if split_file.sha256 in copies:
        return copies[split_file.sha256]
    for path in copies.values():
        if path.name == split_file.name:
            _check_hash(split_file, path.read_bytes(), path)
    raise UsageError(f"--split_file lacks {split_file.name}, which is at {split_file.url}.")


def find_benchmark_images(root: Path, benchmark: Benchmark) -> dict[ImageKey, list[str]]:
    """Every image below the archive's folder, by the key that the split knows it by; archives there are unpacked.

    Raises:
        UsageError: there is none.
    """
    found: dict[ImageKey, list[str]] = defaultdict(list)
    for place in extract_archives(root):
        for folder, children, files in os.walk(place):
            children.sort()
            for name in sorted(files):
                if name.lower().endswith(IMAGE_SUFFIXES):
                    stem = Path(name).stem
                    key = (_class_from_folder(benchmark, folder), stem) if benchmark.keyed_by_class else stem
                    found[key].append(os.path.join(folder, name))
    if not found:
        raise UsageError(f"{root} holds no images: --data_dir takes the archive of {benchmark.homepage}.")
    return _filter_image_folders(found, benchmark)


def _class_from_folder(benchmark: Benchmark, path: str) -> str:
    """The class that a folder is of; of others its own name."""
    name = Path(path).name
    return next((label for label, theirs in benchmark.folders.items() if theirs == name), name)


def _filter_image_folders(paths_by_key: dict[ImageKey, list[str]], benchmark: Benchmark) -> dict[ImageKey, list[str]]:
    """Without the copies that an archive holds elsewhere, where it names the folders of its images."""
    wanted = set(benchmark.image_folders)
    inside = {key: [path for path in paths if wanted & set(Path(path).parts)] for key, paths in paths_by_key.items()}
    return {key: paths for key, paths in inside.items() if paths} if wanted and any(inside.values()) else paths_by_key


@dataclass
class BenchmarkData:
    """A benchmark as it was found in an archive."""

    splits: DatasetDict
    missing: list[str]  # images of the split that the archive lacks
    unused: dict[str, int]  # folder -> images that belong to no split (other classes, unlabelled frames, excluded)
    num_excluded: int  # images left out by --exclude_pairs
    protocol: str | None  # whose published counts these are; None: of none
    conflicting_labels: list[str] = field(default_factory=list)  # images that the split gives two labels, left out

    @property
    def matches_published(self) -> bool:
        """Whether the counts are the published ones of the main split, or of all images where there is none."""
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
    """The official splits of a benchmark, from its unpacked archive.

    Args:
        name: a key of `BENCHMARKS`, or a YAML file.
        data_dir: the archive's folder, or any folder above or inside it, or the archive as it was downloaded.
        fold: of halves, 1 trains on the first and validates on the second, and 2 the reverse.
        val_fraction, seed: the held-out share where there is no official split (stratified, seeded).
        split_files: copies of the official CSVs; None: they are downloaded and cached.
        exclude_pairs: similarities CSV whose pairs with conflicting labels are left out, both images of each.
        on_bad_image: `error` stops at images that are missing or unreadable and lists them; `skip` goes on without.
        agreement: of labels by several annotators, which of them have to agree; None: the benchmark's first.
        check: as of `load_image_folder`.

    Raises:
        UsageError: what is wrong, in one sentence.
    """
    benchmark = find_benchmark(name)
    root = Path(data_dir)
    if benchmark.folds and not 1 <= fold <= benchmark.folds:
        raise UsageError(f"{name} has folds 1 to {benchmark.folds}, not {fold}.")
    if agreement is not None and agreement not in benchmark.split_table.agreements:
        known = ", ".join(benchmark.split_table.agreements)
        told = f"has the agreements {known}" if known else "has one label an image"
        raise UsageError(f"{name} {told}, not {agreement}.")
    found = find_benchmark_images(root, benchmark)
    conflicting_labels: list[str] = []
    if benchmark.split_files:
        assigned, conflicting_labels = read_split_assignments(benchmark, split_files, fold, agreement)
    elif benchmark.split_folders:
        found, assigned = _assign_by_folder(benchmark, found)
    else:
        assigned = _assign_random_split(benchmark, found, val_fraction, seed)
    if benchmark.test_folder:
        assigned |= _assign_test_folder(benchmark, found)
    excluded = read_pair_keys(Path(exclude_pairs), benchmark.keyed_by_class) if exclude_pairs else set()
    joined = _join_files(benchmark, root, found, assigned, excluded, fold)
    if joined.missing and on_bad_image == "error":
        raise UsageError(_format_missing(name, benchmark, root, joined))
    entries = filter_valid_samples(joined.samples, [], on_bad_image, num_workers, check_overlap=False, check=check)
    if not entries:
        raise UsageError(f"{root} holds no image of {name}: --data_dir takes the archive of {benchmark.homepage}.")
    by_split = {split: [entry for entry in entries if entry.split == split] for split in SPLITS}
    counts = Counter(entry.split for entry in entries)
    whole = {"all": len(entries)} if not benchmark.has_split else dict(counts)
    return BenchmarkData(
        splits=DatasetDict(
            {s: samples_to_dataset(part, list(benchmark.classes)) for s, part in by_split.items() if part}
        ),
        missing=[name for names in joined.missing.values() for name in names],
        unused=_count_unused(root, found, entries),
        num_excluded=joined.num_excluded,
        protocol=None
        if exclude_pairs
        else next((one for one in benchmark.protocols if benchmark.split_counts(fold, one) == whole), None),
        conflicting_labels=conflicting_labels,
    )


def _format_missing(name: str, benchmark: Benchmark, root: Path, joined: "_JoinedSplit") -> str:
    """Which images an archive lacks, by class, and what that may mean."""
    count = sum(map(len, joined.missing.values()))
    by_class = "; ".join(f"{len(names)} of {label} ({names[0]})" for label, names in sorted(joined.missing.items())[:8])
    more = "; ..." if len(joined.missing) > 8 else ""
    whole = count + len(joined.samples)
    other = f" Is it the archive of {benchmark.homepage}, whole and of that version?" if count > whole / 10 else ""
    first = join_names(sorted(entry for names in joined.missing.values() for entry in names))
    return (
        f"{root} lacks {pluralize(count, 'image')} of {name} (--on_bad_image skip goes on without): {first}. By class: "
        f"{by_class}{more}.{other}"
    )


def _assign_by_folder(
    benchmark: Benchmark, paths_by_key: dict[ImageKey, list[str]]
) -> tuple[dict[ImageKey, list[str]], dict[ImageKey, SplitAssignment]]:
    """Images by their path and what their folders say of them: split and class."""
    by_path: dict[ImageKey, list[str]] = {}
    assigned: dict[ImageKey, SplitAssignment] = {}
    splits = {folder.lower(): split for folder, split in benchmark.split_folders.items()}
    classes = {benchmark.class_folder(name).lower(): name for name in benchmark.classes}
    for path in (path for paths in paths_by_key.values() for path in paths):
        parts = [part.lower() for part in Path(path).parts[:-1]]
        split = next((splits[part] for part in parts if part in splits), None)
        label = next((classes[part] for part in reversed(parts) if part in classes), None)
        by_path[path] = [path]
        if split and label:
            assigned[path] = SplitAssignment(label, split, extra_columns={"source": Path(path).parent.name})
    return by_path, assigned


def _assign_test_folder(
    benchmark: Benchmark, paths_by_key: dict[ImageKey, list[str]]
) -> dict[ImageKey, SplitAssignment]:
    """Images of the folder that is the test split, in class folders."""
    classes = {benchmark.class_folder(name): name for name in benchmark.classes}
    assigned: dict[ImageKey, SplitAssignment] = {}
    for key, paths in paths_by_key.items():
        for path in paths:
            label = classes.get(Path(path).parent.name)
            if label and benchmark.test_folder in Path(path).parts:
                assigned[key] = SplitAssignment(label, "test", _parse_group(benchmark, path))
    if not assigned:
        raise UsageError(f"The archive lacks the folder {benchmark.test_folder}, whose images are the test split.")
    return assigned


def _assign_random_split(
    benchmark: Benchmark, paths_by_key: dict[ImageKey, list[str]], val_fraction: float, seed: int
) -> dict[ImageKey, SplitAssignment]:
    """Where there is no official split: a stratified, seeded share is held out."""
    keys = [key for key in paths_by_key if key[0] in benchmark.classes]
    held_out = stratified_mask([key[0] for key in keys], val_fraction, seed)
    return {key: SplitAssignment(key[0], "validation" if out else "train") for key, out in zip(keys, held_out)}


@dataclass
class _JoinedSplit:
    """Images of an archive with their class and split."""

    samples: list[Sample]
    missing: dict[str, list[str]]  # images of the split that the archive lacks, by class
    num_excluded: int  # images that are left out on purpose


def _join_files(
    benchmark: Benchmark,
    root: Path,
    paths_by_key: dict[ImageKey, list[str]],
    assignments: dict[ImageKey, SplitAssignment],
    excluded_keys: set[ImageKey],
    fold: int,
) -> _JoinedSplit:
    """The official split, with the files that the archive has for it.

    Raises:
        UsageError: some image is there twice, and nothing tells which is meant.
    """
    joined, ambiguous = _JoinedSplit([], {}, 0), []
    for key, told in assignments.items():
        label = told.label
        if label not in benchmark.classes:
            continue
        if key in excluded_keys:
            joined.num_excluded += 1
            continue
        paths = paths_by_key.get(key, [])
        if len(paths) > 1:  # the archive also holds copies (segmented images): take the labelled one
            paths = [path for path in paths if Path(path).parent.name == benchmark.class_folder(label)]
        if not paths:
            name = f"{benchmark.class_folder(label)}/{key if isinstance(key, str) else key[1]}"
            joined.missing.setdefault(label, []).append(name)
        elif len(paths) > 1:
            ambiguous.append(", ".join(os.path.relpath(path, root) for path in paths))
        else:
            split = told.split if isinstance(told.split, str) else ("train" if told.split == fold else "validation")
            joined.samples.append(
                Sample(paths[0], label, split, _display_name(paths[0], root), told.group, told.extra_columns)
            )
    if ambiguous:
        raise UsageError(f"{root} holds {pluralize(len(ambiguous), 'image')} twice: {join_names(ambiguous)}.")
    return joined


def _count_unused(root: Path, paths_by_key: dict[ImageKey, list[str]], samples: list[Sample]) -> dict[str, int]:
    """Folder -> how many of its images are not used."""
    used = {entry.path for entry in samples}
    extra = Counter(
        os.path.relpath(os.path.dirname(path), root)
        for paths in paths_by_key.values()
        for path in paths
        if path not in used
    )
    return dict(sorted(extra.items()))


def _display_name(path: str, root: Path) -> str:
    """As a user knows it: below the folder, or below the archive's own top."""
    name = Path(os.path.relpath(path, root)).as_posix()
    return name if not name.startswith("../") else Path(path).relative_to(_extraction_root(Path(path))).as_posix()


def _extraction_root(path: Path) -> Path:
    """The folder that an image of an archive was unpacked to."""
    return next(parent for parent in path.parents if parent.parent.name == EXTRACTED_DIR)
