"""Archives of images -> a data set whose images are read at their place in them; nothing is unpacked.

Tar files in WebDataset's layout (`KEY.jpg` with `KEY.cls` or `KEY.json` beside it), tar and zip files of class folders,
here or wherever fsspec reaches. What lies where is an index: `hf-mae shard` writes it beside its shards, of others it
is made once, by one pass over their heads, and kept.
"""

import json
import logging
import os
import re
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict, Features, Image, Value
from tqdm.auto import tqdm

from ..compat.datasets import ArrowWriter
from ..errors import UsageError, first_error_line, pluralize
from ..files.archive_members import (
    ARCHIVE_SUFFIXES,
    Member,
    convert_remote_errors,
    decompress_deflate,
    file_system,
    is_remote,
)
from ..files.caches import cached_file, files_fingerprint
from .image_files import IGNORED_DIRS, IMAGE_SUFFIXES, check_utf8_names, walk_images
from .samples import join_names
from .splits import SPLITS, parse_split_name

logger = logging.getLogger(__name__)

INDEX_FILE = "index.parquet"  # beside the shards of `hf-mae shard`
INDEX_VERSION = 1  # of the index
INDEX_SCHEMA = pa.schema(
    {
        "shard": pa.dictionary(pa.int32(), pa.string()),
        "offset": pa.int64(),
        "size": pa.int64(),
        "file_name": pa.string(),
        "split": pa.string(),
        "label": pa.string(),
        "group": pa.string(),
        "digest": pa.string(),  # of the pixels, as `check.look_whole` has it
    }
)
ZIP_LOCAL_HEADER, ZIP_HEADER_SIZE = b"PK\x03\x04", 30  # of a zip's member
ZIP_ENCRYPTED_FLAG = 0x1
BATCH_ROWS = 50_000  # of a table, written at a time
DIGEST_COLUMN = "digest"  # the column of what tells images by their pixels
METADATA_COLUMNS = ("file_name", "split", "label", "group")
CLASS_NAME_FILES = ("classes.txt", "classnames.txt")  # beside archives whose classes are numbers
METADATA_SUFFIXES = (".cls", ".json")  # of WebDataset's, what is read beside an image
MAX_METADATA_BYTES = 1_000_000  # bytes


@dataclass
class _ArchiveImage:
    """An image within an archive."""

    path: str
    file_name: str
    split: str
    label: str | None = None
    group: str | None = None


@dataclass
class _MemberGroup:
    """The members of one key."""

    images: dict[str, Member] = field(default_factory=dict)  # of one name, a tar's last holds
    metadata: dict[str, bytes] = field(default_factory=dict)


def is_archive_source(source: str) -> bool:
    """Whether a source is archives of images: one, a folder of them (without images beside them), or a URL."""
    if is_remote(source):
        return True
    path = Path(source)
    if path.is_file():
        return path.name.lower().endswith(ARCHIVE_SUFFIXES)
    if not path.is_dir():
        return False
    return (path / INDEX_FILE).is_file() or (bool(_find_local_archives(path)) and not walk_images(path).images)


def _find_local_archives(root: Path) -> list[str]:
    """Archives in a folder, and in folders of it that are splits."""
    entries = _scan_sorted(root)
    for child in [entry for entry in entries if parse_split_name(entry.name) and entry.is_dir()]:
        entries += _scan_sorted(child.path)
    return [entry.path for entry in entries if _is_archive(entry.name)]


def _scan_sorted(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _is_archive(name: str) -> bool:
    return name.lower().endswith(ARCHIVE_SUFFIXES) and not name.startswith(".")


def load_archives(source: str) -> DatasetDict:
    """Splits with `image`, `file_name`, and `label`, `group` and `digest` where they are known.

    Raises:
        UsageError: an archive is missing, damaged or of a kind whose members cannot be reached, or there is no image.
    """
    if is_remote(source):
        try:
            with convert_remote_errors():
                return _load_remote(source)
        except OSError as error:
            raise UsageError(f"{source} cannot be reached ({first_error_line(error)}).") from None
    root = Path(source).resolve()
    if (root / INDEX_FILE).is_file():
        return _load_indexed(str(root / INDEX_FILE), str(root))
    return _load_unindexed([str(root)] if root.is_file() else _find_local_archives(root), str(root))


def _load_remote(source: str) -> DatasetDict:
    index = f"{source.rstrip('/')}/{INDEX_FILE}"
    system, path = file_system(source)
    if not _is_archive(path) and system.exists(file_system(index)[1]):
        return _load_indexed(index, source.rstrip("/"))
    found = [path] if system.isfile(path) else sorted(system.glob(path) if "*" in path else system.find(path))
    archives = [system.unstrip_protocol(name) for name in found if _is_archive(os.path.basename(name))]
    if not archives:
        raise UsageError(f"{source} holds no {' or '.join(ARCHIVE_SUFFIXES)}, no parquet and no saved data set.")
    return _load_unindexed(archives, source)


# The index of `hf-mae shard`


def _load_indexed(index: str, root: str) -> DatasetDict:
    """The splits that an index tells, from its memory-mapped form in the cache."""
    try:
        with _open_binary(index) as file:
            schema = pq.read_schema(file)
            about = json.loads((schema.metadata or {}).get(b"hf_mae", b"null"))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(f"{index} is damaged ({first_error_line(error)}): make the shards again.") from None
    if not _is_current_index(about) or schema.names != INDEX_SCHEMA.names:
        raise UsageError(f"{index} is no index of `hf-mae shard` of this version: make the shards again.")
    archives = {name: f"{root}/{name}" for name in about["shards"]}
    _check_shard_sizes(archives, about["shards"], index)
    files = [index, *archives.values()]
    name = files_fingerprint([f"{file}::0+0" for file in files], json.dumps(about))
    return _load_cached_splits(name, lambda: _read_index_table(index, root, set(archives)))


def _is_current_index(metadata: Any) -> bool:
    """Whether what an index says of itself is of this version, and of shards beside it."""
    if (
        not isinstance(metadata, dict)
        or metadata.get("version") != INDEX_VERSION
        or not isinstance(metadata.get("shards"), dict)
    ):
        return False
    return all(name == os.path.basename(name) and _is_archive(name) for name in metadata["shards"])


def _check_shard_sizes(archives: dict[str, str], sizes: dict[str, int], index: str) -> None:
    wrong = [name for name, place in archives.items() if _get_size(place) != sizes[name]]
    if wrong:
        raise UsageError(
            f"{index} does not go with {pluralize(len(wrong), 'shard')} (missing, or of another size): {join_names(wrong)}. "
            "Copy them again, or make them again with hf-mae shard."
        )


def _get_size(archive: str) -> int:
    try:
        if is_remote(archive):
            system, path = file_system(archive)
            return int(system.info(path)["size"])
        return os.path.getsize(archive)
    except OSError:
        return -1


def _read_index_table(index: str, root: str, shards: set[str]) -> pa.Table:
    """Its rows with the images' places spelled out."""
    try:
        with _open_binary(index) as file:
            rows = pq.read_table(file)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(f"{index} is damaged ({first_error_line(error)}): make the shards again.") from None
    if rows.schema.types != INDEX_SCHEMA.types or set(rows["shard"].unique().to_pylist()) - shards:
        raise UsageError(f"{index} names other shards than it has: make the shards again.")
    names = rows["shard"].combine_chunks().cast(pa.string())
    numbers = [rows[name].combine_chunks().cast(pa.string()) for name in ("offset", "size")]
    archives = pc.binary_join_element_wise(pa.scalar(root), names, "/")
    places = pc.binary_join_element_wise(archives, pc.binary_join_element_wise(*numbers, "+"), "::")
    return _add_image_column(rows.drop_columns(["shard", "offset", "size"]), places)


def _add_image_column(rows: pa.Table, paths: Any) -> pa.Table:
    paths = paths.combine_chunks() if isinstance(paths, pa.ChunkedArray) else paths
    images = pa.StructArray.from_arrays([pa.nulls(len(rows), pa.binary()), paths], names=["bytes", "path"])
    table = pa.table({"image": images, **{name: rows[name] for name in rows.column_names}})
    unknown = [name for name in ("label", "group", "digest") if name in table.column_names and table[name].null_count]
    return table.drop_columns(unknown)


def _load_cached_splits(cache_key: str, build_table: Callable[[], pa.Table]) -> DatasetDict:
    """A table as a data set for each split, memory-mapped from the cache, where it is written once."""

    def write(path: Path) -> None:
        table = build_table()
        features = {column: Image() if column == "image" else Value("string") for column in table.column_names}
        with ArrowWriter(features=Features(features), path=str(path), writer_batch_size=BATCH_ROWS) as writer:
            for batch in table.to_batches(max_chunksize=BATCH_ROWS):
                writer.write_table(pa.Table.from_batches([batch]))
            writer.finalize()

    whole = Dataset.from_file(str(cached_file(f"indexes/{cache_key}.arrow", write)))
    column = whole.data.column("split")
    places = {split: pc.indices_nonzero(pc.equal(column, split)).to_numpy() for split in SPLITS}
    rows = whole.remove_columns("split")
    return DatasetDict({split: _select_rows(rows, found) for split, found in places.items() if len(found)})


def _select_rows(dataset: Dataset, rows: np.ndarray) -> Dataset:
    """Some rows; a view where they follow each other."""
    first, last = int(rows[0]), int(rows[-1])
    together = last - first + 1 == len(rows)
    return dataset.select(range(first, last + 1) if together else rows)


# Archives that others have made


def _load_unindexed(archives: list[str], root: str) -> DatasetDict:
    beside = [] if is_remote(root) else [os.path.join(root, name) for name in CLASS_NAME_FILES]
    name = files_fingerprint([*(f"{archive}::0+0" for archive in archives), *beside], root, str(INDEX_VERSION))
    return _load_cached_splits(name, lambda: _build_index_table(archives, root))


def _build_index_table(archives: list[str], root: str) -> pa.Table:
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        bar = tqdm(
            pool.map(_scan_archive, archives), total=len(archives), desc="Reading archives", unit="file", delay=1
        )
        by_archive = dict(zip(archives, bar))
    found = [image for images in by_archive.values() for image in images]
    if len({image.file_name for image in found}) < len(found):  # each archive begins to count anew
        for archive, images in by_archive.items():
            for image in images:
                image.file_name = f"{PurePosixPath(archive).name}/{image.file_name}"
    if not found:
        raise UsageError(f"{root} holds no images: {pluralize(len(archives), 'archive')} without one.")
    check_utf8_names([image.file_name for image in found], root)
    _apply_class_names(found, root)
    found.sort(key=_folder_sort_key)
    columns = {name: pa.array([getattr(image, name) for image in found], pa.string()) for name in METADATA_COLUMNS}
    return _add_image_column(pa.table(columns), pa.array([image.path for image in found], pa.string()))


def _folder_sort_key(image: _ArchiveImage) -> tuple[int, tuple[str, ...], str]:
    """The order in which the same images lie in folders."""
    path = PurePosixPath(image.file_name)
    return SPLITS.index(image.split), path.parts[:-1], path.name


def _scan_archive(archive: str) -> list[_ArchiveImage]:
    """The images of an archive in the order in which they lie there."""
    try:
        with _open_binary(archive) as file:
            zipped = archive.lower().endswith(".zip")
            samples = _group_members(
                _iter_zip_members(archive, file) if zipped else _iter_tar_members(archive, file), file
            )
    except UsageError:
        raise
    except Exception as error:  # tarfile and zipfile raise many kinds
        raise UsageError(
            f"{archive} is damaged, or no archive of its kind ({first_error_line(error)}): fetch or copy it again."
        ) from None
    of_shard = parse_split_name(re.sub(r"\d+", "", PurePosixPath(archive).stem)) or parse_split_name(
        PurePosixPath(archive).parent.name
    )
    return [_make_image(name, member, sample, of_shard) for sample in samples for name, member in sample.images.items()]


def _open_binary(name: str) -> IO[bytes]:
    if not is_remote(name):
        return open(name, "rb")
    system, path = file_system(name)
    opened: IO[bytes] = system.open(path, "rb")
    return opened


def _iter_tar_members(archive: str, file: IO[bytes]) -> Iterator[tuple[str, Member]]:
    try:
        with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as opened:
            for member in opened:
                opened.members = []  # type: ignore[attr-defined]  # else it keeps all of them
                if member.isreg() and not member.issparse():
                    yield member.name, Member(archive, member.offset_data, member.size, False)
            file.seek(opened.offset)
            if file.read(tarfile.BLOCKSIZE).strip(tarfile.NUL) or file.tell() - opened.offset < tarfile.BLOCKSIZE:
                raise tarfile.ReadError("its end is missing")
    except tarfile.ReadError as error:
        file.seek(0)
        if file.read(2) in (b"\x1f\x8b", b"BZ", b"\xfd7"):
            raise UsageError(
                f"{archive} is compressed as a whole, so that no image in it can be reached: unpack it, and make "
                "shards of it with hf-mae shard."
            ) from None
        raise error


def _iter_zip_members(archive: str, file: IO[bytes]) -> Iterator[tuple[str, Member]]:
    with zipfile.ZipFile(file) as opened:
        infos = [info for info in opened.infolist() if not info.is_dir()]
    for info in infos:
        if info.flag_bits & ZIP_ENCRYPTED_FLAG or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            why = "encrypted" if info.flag_bits & ZIP_ENCRYPTED_FLAG else "compressed in a way that is not read"
            raise UsageError(f"{archive}: {info.filename} is {why}. Unpack it, and zip it anew.")
        file.seek(info.header_offset)
        head = file.read(ZIP_HEADER_SIZE)
        if head[:4] != ZIP_LOCAL_HEADER:
            raise zipfile.BadZipFile(f"{info.filename} is not where it should be")
        name_size, extra_size = struct.unpack("<HH", head[26:30])
        start = info.header_offset + ZIP_HEADER_SIZE + name_size + extra_size
        yield info.filename, Member(archive, start, info.compress_size, info.compress_type == zipfile.ZIP_DEFLATED)


def _group_members(members: Iterator[tuple[str, Member]], file: IO[bytes]) -> list[_MemberGroup]:
    """Members by their key: the path up to the first dot of the name, as WebDataset has it."""
    samples: dict[str, _MemberGroup] = {}
    later: list[tuple[str, str, Member]] = []
    for name, member in members:
        path = PurePosixPath(name)
        if path.name.startswith(".") or set(path.parts) & set(IGNORED_DIRS):
            continue
        key = str(path.with_name(path.name.partition(".")[0]))
        if path.name.lower().endswith(IMAGE_SUFFIXES):
            samples.setdefault(key, _MemberGroup()).images[str(path)] = member
        elif path.suffix.lower() in METADATA_SUFFIXES and member.size <= MAX_METADATA_BYTES:
            later.append((key, path.suffix.lower(), member))
    for key, kind, member in later:
        if key in samples:
            file.seek(member.offset)
            content = file.read(member.size)
            samples[key].metadata[kind] = decompress_deflate(content) if member.deflated else content
    return list(samples.values())


def _make_image(name: str, member: Member, group: _MemberGroup, archive_split: str | None) -> _ArchiveImage:
    """What is known of an image: by the metadata beside it, else by its folders."""
    told = _parse_sidecar_metadata(group, name)
    folders = PurePosixPath(name).parts[:-1]
    split = next((found for folder in folders if (found := parse_split_name(folder))), None)
    classes = [folder for folder in folders if not parse_split_name(folder)]
    label = told.get("label", classes[-1] if classes else None)
    return _ArchiveImage(
        str(member),
        str(told.get("file_name", name)),
        parse_split_name(str(told.get("split", ""))) or archive_split or split or "train",
        None if label is None else str(label),
        None if told.get("group") is None else str(told["group"]),
    )


def _parse_sidecar_metadata(group: _MemberGroup, name: str) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if ".cls" in group.metadata:
        told["label"] = group.metadata[".cls"].decode("utf-8", "replace").strip()
    if ".json" in group.metadata:
        try:
            found = json.loads(group.metadata[".json"])
        except (ValueError, RecursionError):
            raise UsageError(f"The JSON beside {name} is damaged.") from None
        if isinstance(found, dict):
            told |= {key: found[key] for key in ("label", "file_name", "split", "group") if found.get(key) is not None}
    return told


def _apply_class_names(images: list[_ArchiveImage], root: str) -> None:
    """Gives numbered classes their names, where a file beside the archives has them, a line each."""
    labels = {image.label for image in images}
    if None in labels or not all(str(label).isdecimal() for label in labels):
        return
    beside = [path for name in CLASS_NAME_FILES if (path := Path(root) / name).is_file()] if not is_remote(root) else []
    if not beside:
        return
    names = beside[0].read_text(encoding="utf-8-sig").splitlines()
    if max(map(int, filter(None, labels))) >= len(names):
        raise UsageError(f"{beside[0]} names {pluralize(len(names), 'class', 'classes')}, and {root} has more.")
    for image in images:
        image.label = names[int(str(image.label))]
