"""An unpacked benchmark archive and its official split -> a `DatasetDict`.

Image files are found anywhere below the archive's folder, whatever their extension (people re-encode), and joined with
the official split on the key that is unique: the file's stem for HyperKvasir, whose class names differ from its
folders', and class and stem for GastroVision, where 51 file names occur in two classes.
"""

import csv
import hashlib
import os
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from datasets import DatasetDict

from ..errors import UsageError
from ..files.caches import cache_folder
from ..files.downloads import download
from .benchmarks import Benchmark, SplitFile, find_benchmark
from .entries import Check, Entry, drop_or_refuse, listed, to_dataset
from .files import IMAGE_SUFFIXES
from .pairs import Key, read_pairs
from .shares import stratified_share
from .splits import SPLITS


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


def _check_hash(split_file: SplitFile, content: bytes, where: str | Path) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != split_file.sha256:
        raise UsageError(
            f"{where} is not the official {split_file.name} (SHA-256 {found[:12]}..., expected "
            f"{split_file.sha256[:12]}...): it was edited or changed; get the original from {split_file.url}."
        )


def read_split(benchmark: Benchmark, given: list[str] | None) -> dict[Key, tuple[str, str]]:
    """Key of an image -> (class, split or fold index) from the official CSVs.

    Args:
        given: the user's copies (`--split_file`), matched by their hash; None: downloaded.
    """
    copies = {}
    for name in given or []:
        path = Path(name)
        if not path.is_file():
            raise UsageError(f"The split file {path} does not exist.")
        copies[hashlib.sha256(path.read_bytes()).hexdigest()] = path
    assigned: dict[Key, tuple[str, str]] = {}
    for split_file in benchmark.split_files:
        if given:
            path = _own_copy(split_file, copies)
        else:
            path = fetch_split_file(split_file)
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, delimiter=";" if split_file.split is None else ",")
            next(rows)
            for row in rows:
                stem, name = Path(row[0]).stem, row[1]
                key = (name, stem) if benchmark.keyed_by_class else stem
                assigned[key] = (name, split_file.split or row[2])
    return assigned


def _own_copy(split_file: SplitFile, copies: dict[str, Path]) -> Path:
    """The user's copy of an official CSV, of copies by their hash."""
    if split_file.sha256 in copies:
        return copies[split_file.sha256]
    for path in copies.values():
        if path.name == split_file.name:
            _check_hash(split_file, path.read_bytes(), path)
    raise UsageError(f"--split_file lacks {split_file.name}, which is at {split_file.url}.")


def find_images(root: Path, benchmark: Benchmark) -> dict[Key, list[str]]:
    """Every image below the archive's folder, by the key that the split knows it by."""
    if not root.is_dir():
        raise UsageError(f"{root} is no folder: --data_dir takes the unpacked archive.")
    found: dict[Key, list[str]] = defaultdict(list)
    for folder, children, files in os.walk(root):
        children.sort()
        for name in sorted(files):
            if name.lower().endswith(IMAGE_SUFFIXES):
                stem = Path(name).stem
                found[(Path(folder).name, stem) if benchmark.keyed_by_class else stem].append(
                    os.path.join(folder, name)
                )
    if not found:
        raise UsageError(f"{root} holds no images: --data_dir takes the unpacked archive of {benchmark.homepage}.")
    return found


@dataclass
class BenchmarkData:
    """A benchmark as it was found in an archive."""

    splits: DatasetDict
    missing: list[str]  # images of the split that the archive lacks
    extra: dict[str, int]  # folder -> images that belong to no split (other classes, unlabelled frames, excluded)
    excluded: int  # images left out by --exclude_pairs
    as_published: bool  # whether the counts are the published ones


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
    check: Check | None = None,
) -> BenchmarkData:
    """The official splits of a benchmark, from its unpacked archive.

    Args:
        name: a key of `BENCHMARKS`.
        data_dir: the archive's folder, or any folder above or inside it.
        fold: 1 trains on split index 0 and validates on 1; 2 is the reverse (HyperKvasir).
        val_fraction, seed: the held-out share where there is no official split (stratified, seeded).
        split_files: copies of the official CSVs; None: they are downloaded and cached.
        exclude_pairs: similarities CSV whose pairs with conflicting labels are left out, both images of each.
        on_bad_image: `error` stops at images that are missing or unreadable and lists them; `skip` goes on without.
        check: as of `load_image_folder`.

    Raises:
        UsageError: what is wrong, in one sentence.
    """
    benchmark = find_benchmark(name)
    root = Path(data_dir)
    if benchmark.folds and not 1 <= fold <= benchmark.folds:
        raise UsageError(f"{name} has folds 1 to {benchmark.folds}, not {fold}.")
    found = find_images(root, benchmark)
    if benchmark.split_files:
        assigned = read_split(benchmark, split_files)
    else:
        assigned = _drawn_split(benchmark, found, val_fraction, seed)
    excluded = read_pairs(Path(exclude_pairs), benchmark.keyed_by_class) if exclude_pairs else set()
    joined = _join(benchmark, root, found, assigned, excluded, fold)
    if joined.missing and on_bad_image == "error":
        raise UsageError(
            f"{root} lacks {len(joined.missing)} images of {name} (--on_bad_image skip goes on without): "
            f"{listed(sorted(joined.missing))}."
        )
    entries = drop_or_refuse(joined.entries, [], on_bad_image, num_workers, own_splits=False, check=check)
    if not entries:
        raise UsageError(f"{root} holds no image of {name}: --data_dir takes the archive of {benchmark.homepage}.")
    by_split = {split: [entry for entry in entries if entry.split == split] for split in SPLITS}
    return BenchmarkData(
        splits=DatasetDict({s: to_dataset(part, list(benchmark.classes)) for s, part in by_split.items() if part}),
        missing=joined.missing,
        extra=_extra(root, found, entries),
        excluded=joined.excluded,
        as_published=not exclude_pairs and _counts(entries, benchmark) == benchmark.counts_of(fold),
    )


def _drawn_split(
    benchmark: Benchmark, found: dict[Key, list[str]], val_fraction: float, seed: int
) -> dict[Key, tuple[str, str]]:
    """Key -> (class, split), where there is no official split: a stratified, seeded share is held out."""
    keys = [key for key in found if key[0] in benchmark.classes]
    held_out = stratified_share([key[0] for key in keys], val_fraction, seed)
    return {key: (key[0], "validation" if out else "train") for key, out in zip(keys, held_out)}


@dataclass
class _Joined:
    """Images of an archive with their class and split."""

    entries: list[Entry]
    missing: list[str]  # images of the split that the archive lacks
    excluded: int  # images that are left out on purpose


def _join(
    benchmark: Benchmark,
    root: Path,
    found: dict[Key, list[str]],
    assigned: dict[Key, tuple[str, str]],
    excluded: set[Key],
    fold: int,
) -> _Joined:
    """The official split, with the files that the archive has for it.

    Raises:
        UsageError: some image is there twice, and nothing tells which is meant.
    """
    joined, ambiguous = _Joined([], [], 0), []
    for key, (label, where) in assigned.items():
        if label not in benchmark.classes:
            continue
        if key in excluded:
            joined.excluded += 1
            continue
        paths = found.get(key, [])
        if len(paths) > 1:  # the archive also holds copies (segmented images): take the labelled one
            paths = [path for path in paths if Path(path).parent.name == benchmark.folder_of(label)]
        if not paths:
            joined.missing.append(f"{benchmark.folder_of(label)}/{key if isinstance(key, str) else key[1]}")
        elif len(paths) > 1:
            ambiguous.append(", ".join(os.path.relpath(path, root) for path in paths))
        else:
            split = where if where in SPLITS else ("train" if int(where) == fold - 1 else "validation")
            file_name = Path(os.path.relpath(paths[0], root)).as_posix()
            joined.entries.append(Entry(paths[0], label, split, file_name))
    if ambiguous:
        raise UsageError(f"{root} holds {len(ambiguous)} images twice: {listed(ambiguous)}.")
    return joined


def _extra(root: Path, found: dict[Key, list[str]], entries: list[Entry]) -> dict[str, int]:
    """Folder -> how many of its images are not used."""
    used = {entry.path for entry in entries}
    extra = Counter(
        os.path.relpath(os.path.dirname(path), root) for paths in found.values() for path in paths if path not in used
    )
    return dict(sorted(extra.items()))


def _counts(entries: list[Entry], benchmark: Benchmark) -> dict[str, int]:
    """Images by split, or of all where the benchmark has no split."""
    return {"all": len(entries)} if "all" in benchmark.counts else dict(Counter(entry.split for entry in entries))
