"""Benchmarks: the images of a folder or of archives, joined with the official split (`settings.benchmarks`).

Images are found anywhere below the folder, with any extension (users re-encode them). Their unique key is the file stem
for HyperKvasir, whose class names differ from its folder names, and class and stem for GastroVision, in which 24 file
names occur in two to seven classes.
"""

import gzip
import logging
import os
import re
import shutil
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.compute as pc
from datasets import Value

from ...errors import UsageError, first_error_line, warn
from ...files.caches import cached_file, files_fingerprint
from ...settings.benchmarks import Benchmark, find_benchmark
from ..columns import arrow_column
from ..exclusion_log import ExclusionReason
from ..images.videos import is_video
from ..messages import DataMessage
from .archive import ARCHIVES
from .kinds import Samples, SourceKind, SourceOptions
from .location import COMPRESSED, HEAD_BYTES, TAR, ZIP, Location, sniff
from .official_split import ImageKey, OfficialRow, parse_group, read_official_rows
from .samples import build_path_dataset, join_names

logger = logging.getLogger(__name__)

EXTRACTED_DIR = "unpacked"  # folder of the cache
MAX_CLASSES = 8  # classes that a message about missing images lists


@dataclass(frozen=True)
class _Image:
    """An image below the source: the path that opens it, its name, and the names of the folders that contain it, from
    the root."""

    path: str
    file_name: str
    folders: tuple[str, ...]

    @property
    def stem(self) -> str:
        return PurePosixPath(self.file_name).stem


@dataclass
class _Joined:
    """Images of the split, in its order, and the names of those that the source lacks, by class."""

    images: list[_Image] = field(default_factory=list)
    rows: list[OfficialRow] = field(default_factory=list)
    missing: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def _read(location: Location, options: SourceOptions) -> Samples:
    request = options.benchmark
    assert request is not None
    benchmark = find_benchmark(request.name)
    images, excluded = _list_images(location, benchmark, with_videos=bool(options.frames))
    by_key: dict[ImageKey, list[_Image]] = defaultdict(list)
    classes = {benchmark.class_folder(name).lower(): name for name in benchmark.classes}
    for image in images:
        by_key[_image_key(benchmark, classes, image)].append(image)
    conflicting: list[str] = []
    if benchmark.split_files:
        rows, conflicting = read_official_rows(benchmark, request.split_files, request.fold, request.agreement)
    else:
        rows = _rows_of_folders(benchmark, classes, by_key)
    if benchmark.test_folder:
        rows |= _rows_of_test_folder(benchmark, classes, by_key)
    joined = _join(benchmark, location.uri, by_key, rows)
    if joined.missing:
        _report_missing(request.name, benchmark, location.uri, joined, request.on_bad_image)
    if conflicting:
        count, names = len(conflicting), join_names(conflicting)
        warn(logger, DataMessage.CONFLICTING_LABELS_EXCLUDED, count=count, names=names)
    unused = _count_unused(images, joined.images)
    return Samples(
        _build_dataset(joined),
        paths=lambda: [image.file_name for image in joined.images],
        stated=_stated_columns(benchmark, joined.rows, request.fold),
        class_names=list(benchmark.classes),
        excluded=excluded + unused,
        unused=Counter(
            {
                ExclusionReason.TWO_LABELS: len(conflicting),
                ExclusionReason.NOT_IN_BENCHMARK: max(0, unused.total() - len(conflicting)),
            }
        ),
        is_final=True,
        labels_required=True,
    )


def _list_images(location: Location, benchmark: Benchmark, with_videos: bool) -> tuple[list[_Image], Counter[str]]:
    """Lists the images below a folder and in its archives; of a benchmark that names its image folders, only those in
    them, if there are any.

    Raises:
        UsageError: If there are none.
    """
    if not location.is_remote and not location.exists:
        raise UsageError(DataMessage.NOT_A_DATA_SOURCE, source=location.uri)
    images, excluded = [], Counter[str]()
    if location.is_folder:
        root, tree = location.path.resolve().name, location.tree
        images = [_make_image(os.path.join(location.path, name), name, root) for name in tree.images]
        excluded += tree.ignored_counts
    for archive in _find_archives(location):
        members, ignored = _list_members(archive)
        images += members
        excluded += ignored
    if not with_videos:
        images = [image for image in images if not is_video(image.file_name)]
    if not images:
        raise UsageError(DataMessage.BENCHMARK_WITHOUT_FILES, root=location.uri, homepage=benchmark.homepage)
    wanted = set(benchmark.image_folders)
    return [image for image in images if not wanted.isdisjoint(image.folders)] or images, excluded


def _make_image(path: str, file_name: str, root: str = "") -> _Image:
    name = PurePosixPath(Path(file_name).as_posix())
    return _Image(path, str(name), (root, *name.parts[:-1]))


def _find_archives(location: Location) -> list[str]:
    """Returns the archives that a source is or contains, without those that the user extracted next to them."""
    if location.is_remote:
        return location.archives
    if not location.is_folder:
        return [location.uri]
    files = [location.path / name for name in location.tree.others]
    return [
        str(file)
        for file in files
        if location.find_type(str(file)) in (TAR, ZIP, COMPRESSED)
        and not (file.parent / re.sub(r"(\.tar)?\.\w+$", "", file.name)).is_dir()
    ]


def _list_members(archive: str) -> tuple[list[_Image], Counter[str]]:
    """Lists the images of an archive. `..` and `/` at the start of their names are not part of the names."""
    location = Location(archive)
    if location.exists and location.file_type == COMPRESSED:
        location = Location(_decompress(archive))
    if location.exists and location.file_type not in (TAR, ZIP):
        return [], Counter({"files that are not archives": 1})
    try:
        samples = ARCHIVES.read(location, SourceOptions())
    except UsageError as error:
        if error.code == DataMessage.ARCHIVES_WITHOUT_IMAGES:
            return [], Counter()
        raise
    paths = pc.struct_field(arrow_column(samples.data, "image"), "path").to_pylist()
    names = [PurePosixPath(name.replace("\\", "/")) for name in arrow_column(samples.data, "file_name").to_pylist()]
    cleaned = ["/".join(part for part in name.parts if part not in ("/", "..")) for name in names]
    return list(map(_make_image, paths, cleaned)), samples.excluded


def _decompress(archive: str) -> str:
    """Returns a compressed tar file as a tar file in the cache; other compressed files are returned as they are."""

    def write(path: Path) -> None:
        logger.info("Decompressing %s to %s (once) ...", archive, path.parent)
        with gzip.open(archive) as source:
            with open(path, "wb") as target:
                shutil.copyfileobj(source, target)

    try:
        with gzip.open(archive) as source:
            is_tar = sniff(source.read(HEAD_BYTES)) == TAR
        return str(cached_file(f"{EXTRACTED_DIR}/{files_fingerprint([archive])}.tar", write)) if is_tar else archive
    except gzip.BadGzipFile:  # compressed in another way
        return archive
    except (EOFError, zlib.error) as error:
        raise UsageError(DataMessage.ARCHIVE_DAMAGED, archive=archive, reason=first_error_line(error)) from None


def _image_key(benchmark: Benchmark, classes: dict[str, str], image: _Image) -> ImageKey:
    """Returns what identifies an image in the split: its path if folders define the split, or else its stem, with its
    class if the stem is not unique."""
    if benchmark.split_folders and not benchmark.split_files:
        return image.path
    if benchmark.split_files and not benchmark.keyed_by_class:
        return image.stem
    return _find_class(classes, image) or image.folders[-1], image.stem


def _find_class(classes: dict[str, str], image: _Image) -> str | None:
    """Returns the class of the innermost folder that is a class folder; `classes`: folder in lower case -> class."""
    return next((classes[name.lower()] for name in reversed(image.folders) if name.lower() in classes), None)


def _rows_of_folders(
    benchmark: Benchmark, classes: dict[str, str], by_key: dict[ImageKey, list[_Image]]
) -> dict[ImageKey, OfficialRow]:
    """Returns the images in class folders; their split is that of the innermost split folder, or `train` if the
    benchmark has no official split."""
    splits = {folder.lower(): str(split) for folder, split in benchmark.split_folders.items()}
    rows: dict[ImageKey, OfficialRow] = {}
    for key, (image, *_) in by_key.items():
        label = _find_class(classes, image)
        in_path = [splits[name.lower()] for name in image.folders if name.lower() in splits]
        if label and (in_path or not splits):
            extra = {"source": image.folders[-1]} if splits else {}
            group = parse_group(benchmark, image.file_name)
            rows[key] = OfficialRow(label, in_path[-1] if in_path else "train", group, extra)
    return rows


def _rows_of_test_folder(
    benchmark: Benchmark, classes: dict[str, str], by_key: dict[ImageKey, list[_Image]]
) -> dict[ImageKey, OfficialRow]:
    """Returns the images of the test folder, by class folder."""
    rows: dict[ImageKey, OfficialRow] = {}
    for key, images in by_key.items():
        for image in images:
            label = _find_class(classes, image)
            if label and benchmark.test_folder in image.folders:
                rows[key] = OfficialRow(label, "test", parse_group(benchmark, image.file_name))
    if not rows:
        raise UsageError(DataMessage.BENCHMARK_WITHOUT_TEST_FOLDER, folder=benchmark.test_folder)
    return rows


def _join(
    benchmark: Benchmark, root: str, by_key: dict[ImageKey, list[_Image]], rows: dict[ImageKey, OfficialRow]
) -> _Joined:
    """Joins the official split with the images.

    Raises:
        UsageError: If there are two images of a row, and not exactly one of them is in the folder of its class.
    """
    joined, duplicates = _Joined(), []
    for key, row in rows.items():
        if row.label not in benchmark.classes:
            continue
        folder, images = benchmark.class_folder(row.label), by_key.get(key, [])
        if len(images) > 1:  # the archive also contains copies (segmented images): use the one in the class folder
            images = [image for image in images if image.folders[-1] == folder]
        if not images:
            joined.missing[row.label].append(f"{folder}/{key if isinstance(key, str) else key[1]}")
        elif len(images) > 1:
            duplicates.append(", ".join(image.file_name for image in images))
        else:
            joined.images.append(images[0])
            joined.rows.append(row)
    if duplicates:
        count, names = len(duplicates), join_names(duplicates)
        raise UsageError(DataMessage.BENCHMARK_DUPLICATE_IMAGES, root=root, count=count, names=names)
    return joined


def _report_missing(name: str, benchmark: Benchmark, root: str, joined: _Joined, on_bad_image: str) -> None:
    """Warns of missing images.

    Raises:
        UsageError: If `on_bad_image` is `error`; if more than 10 % are missing, it asks for the complete archive.
    """
    missing = sorted(image for images in joined.missing.values() for image in images)
    count = len(missing)
    if on_bad_image == "skip":
        warn(logger, DataMessage.MISSING_IMAGES_SKIPPED, count=count, names=join_names(missing, show_all=True))
        return
    by_class = [f"{len(images)} of {label} ({images[0]})" for label, images in sorted(joined.missing.items())]
    is_incomplete = count > (count + len(joined.images)) / 10
    raise UsageError(
        DataMessage.BENCHMARK_INCOMPLETE if is_incomplete else DataMessage.BENCHMARK_MISSING_IMAGES,
        root=root,
        count=count,
        benchmark=name,
        names=join_names(missing),
        by_class="; ".join(by_class[:MAX_CLASSES]) + ("; ..." if len(by_class) > MAX_CLASSES else ""),
        homepage=benchmark.homepage,
    )


def _count_unused(images: list[_Image], used: list[_Image]) -> Counter[str]:
    """Counts the images of each folder that are in no split (other classes, unlabelled frames)."""
    paths = {image.path for image in used}
    folders = [str(PurePosixPath(image.file_name).parent) for image in images if image.path not in paths]
    return Counter(f"images in {folder} that are in no split" for folder in folders)


def _build_dataset(joined: _Joined) -> Any:
    data = build_path_dataset([image.path for image in joined.images], [image.file_name for image in joined.images])
    for name in joined.rows[0].extra_columns if joined.rows else ():
        values = [row.extra_columns.get(name, "") for row in joined.rows]
        data = data.add_column(name, values, feature=Value("string"))
    return data


def _stated_columns(benchmark: Benchmark, rows: list[OfficialRow], fold: int) -> dict[str, Any]:
    halves = {"1": "train" if fold == 1 else "validation", "2": "train" if fold == 2 else "validation"}
    stated: dict[str, Any] = {"label": lambda: [row.label for row in rows]}
    if benchmark.has_split or benchmark.test_folder:
        stated["split"] = lambda: [halves.get(row.split, row.split) for row in rows]
    if all(row.group is not None for row in rows):
        stated["group"] = lambda: [row.group for row in rows]
    return stated


BENCHMARK = SourceKind(lambda location, options: options.benchmark is not None, _read)
