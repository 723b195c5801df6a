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
from ..errors import UsageError, counted, first_line
from ..files.caches import files_fingerprint, kept_file
from ..files.members import ARCHIVE_SUFFIXES, Member, errors_of_remote, file_system, inflated, is_remote
from .entries import listed
from .files import IMAGE_SUFFIXES, LITTER, refuse_odd_names, walk_images
from .splits import SPLITS, split_named

logger = logging.getLogger(__name__)

INDEX = "index.parquet"  # beside the shards of `hf-mae shard`
VERSION = 1  # of the index
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
LOCAL_HEADER, HEADER_SIZE = b"PK\x03\x04", 30  # of a zip's member
ENCRYPTED = 0x1
ROWS = 50_000  # of a table, written at a time
DIGEST = "digest"  # the column of what tells images by their pixels
COLUMNS = ("file_name", "split", "label", "group")
NAMES_BESIDE = ("classes.txt", "classnames.txt")  # beside archives whose classes are numbers
METADATA = (".cls", ".json")  # of WebDataset's, what is read beside an image
LARGEST_METADATA = 1_000_000  # bytes


@dataclass
class _Found:
    """An image within an archive."""

    place: str
    file_name: str
    split: str
    label: str | None = None
    group: str | None = None


@dataclass
class _Sample:
    """The members of one key."""

    images: dict[str, Member] = field(default_factory=dict)  # of one name, a tar's last holds
    metadata: dict[str, bytes] = field(default_factory=dict)


def is_sharded(source: str) -> bool:
    """Whether a source is archives of images: one, a folder of them (without images beside them), or a URL."""
    if is_remote(source):
        return True
    path = Path(source)
    if path.is_file():
        return path.name.lower().endswith(ARCHIVE_SUFFIXES)
    if not path.is_dir():
        return False
    return (path / INDEX).is_file() or (bool(_local_archives(path)) and not walk_images(path).images)


def _local_archives(root: Path) -> list[str]:
    """Archives in a folder, and in folders of it that are splits."""
    entries = _entries(root)
    for child in [entry for entry in entries if split_named(entry.name) and entry.is_dir()]:
        entries += _entries(child.path)
    return [entry.path for entry in entries if _is_archive(entry.name)]


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _is_archive(name: str) -> bool:
    return name.lower().endswith(ARCHIVE_SUFFIXES) and not name.startswith(".")


def load_shards(source: str) -> DatasetDict:
    """Splits with `image`, `file_name`, and `label`, `group` and `digest` where they are known.

    Raises:
        UsageError: an archive is missing, damaged or of a kind whose members cannot be reached, or there is no image.
    """
    if is_remote(source):
        try:
            with errors_of_remote():
                return _of_remote(source)
        except OSError as error:
            raise UsageError(f"{source} cannot be reached ({first_line(error)}).") from None
    root = Path(source).resolve()
    if (root / INDEX).is_file():
        return _of_index(str(root / INDEX), str(root))
    return _of_archives([str(root)] if root.is_file() else _local_archives(root), str(root))


def _of_remote(source: str) -> DatasetDict:
    index = f"{source.rstrip('/')}/{INDEX}"
    system, path = file_system(source)
    if not _is_archive(path) and system.exists(file_system(index)[1]):
        return _of_index(index, source.rstrip("/"))
    found = [path] if system.isfile(path) else sorted(system.glob(path) if "*" in path else system.find(path))
    archives = [system.unstrip_protocol(name) for name in found if _is_archive(os.path.basename(name))]
    if not archives:
        raise UsageError(f"{source} holds no {' or '.join(ARCHIVE_SUFFIXES)}, no parquet and no saved data set.")
    return _of_archives(archives, source)


# The index of `hf-mae shard`


def _of_index(index: str, root: str) -> DatasetDict:
    """The splits that an index tells, from its memory-mapped form in the cache."""
    try:
        with _opened(index) as file:
            schema = pq.read_schema(file)
            about = json.loads((schema.metadata or {}).get(b"hf_mae", b"null"))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(f"{index} is damaged ({first_line(error)}): make the shards again.") from None
    if not _is_ours(about) or schema.names != INDEX_SCHEMA.names:
        raise UsageError(f"{index} is no index of `hf-mae shard` of this version: make the shards again.")
    archives = {name: f"{root}/{name}" for name in about["shards"]}
    _refuse_changed(archives, about["shards"], index)
    files = [index, *archives.values()]
    name = files_fingerprint([f"{file}::0+0" for file in files], json.dumps(about))
    return _kept_splits(name, lambda: _table_of_index(index, root, set(archives)))


def _is_ours(about: Any) -> bool:
    """Whether what an index says of itself is of this version, and of shards beside it."""
    if not isinstance(about, dict) or about.get("version") != VERSION or not isinstance(about.get("shards"), dict):
        return False
    return all(name == os.path.basename(name) and _is_archive(name) for name in about["shards"])


def _refuse_changed(archives: dict[str, str], sizes: dict[str, int], index: str) -> None:
    wrong = [name for name, place in archives.items() if _size(place) != sizes[name]]
    if wrong:
        raise UsageError(
            f"{index} does not go with {counted(len(wrong), 'shard')} (missing, or of another size): {listed(wrong)}. "
            "Copy them again, or make them again with hf-mae shard."
        )


def _size(archive: str) -> int:
    try:
        if is_remote(archive):
            system, path = file_system(archive)
            return int(system.info(path)["size"])
        return os.path.getsize(archive)
    except OSError:
        return -1


def _table_of_index(index: str, root: str, shards: set[str]) -> pa.Table:
    """Its rows with the images' places spelled out."""
    try:
        with _opened(index) as file:
            rows = pq.read_table(file)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(f"{index} is damaged ({first_line(error)}): make the shards again.") from None
    if rows.schema.types != INDEX_SCHEMA.types or set(rows["shard"].unique().to_pylist()) - shards:
        raise UsageError(f"{index} names other shards than it has: make the shards again.")
    names = rows["shard"].combine_chunks().cast(pa.string())
    numbers = [rows[name].combine_chunks().cast(pa.string()) for name in ("offset", "size")]
    archives = pc.binary_join_element_wise(pa.scalar(root), names, "/")
    places = pc.binary_join_element_wise(archives, pc.binary_join_element_wise(*numbers, "+"), "::")
    return _with_images(rows.drop_columns(["shard", "offset", "size"]), places)


def _with_images(rows: pa.Table, places: Any) -> pa.Table:
    places = places.combine_chunks() if isinstance(places, pa.ChunkedArray) else places
    images = pa.StructArray.from_arrays([pa.nulls(len(rows), pa.binary()), places], names=["bytes", "path"])
    table = pa.table({"image": images, **{name: rows[name] for name in rows.column_names}})
    unknown = [name for name in ("label", "group", "digest") if name in table.column_names and table[name].null_count]
    return table.drop_columns(unknown)


def _kept_splits(name: str, make: Callable[[], pa.Table]) -> DatasetDict:
    """A table as a data set for each split, memory-mapped from the cache, where it is written once."""

    def write(path: Path) -> None:
        table = make()
        features = {column: Image() if column == "image" else Value("string") for column in table.column_names}
        with ArrowWriter(features=Features(features), path=str(path), writer_batch_size=ROWS) as writer:
            for batch in table.to_batches(max_chunksize=ROWS):
                writer.write_table(pa.Table.from_batches([batch]))
            writer.finalize()

    whole = Dataset.from_file(str(kept_file(f"indexes/{name}.arrow", write)))
    column = whole.data.column("split")
    places = {split: pc.indices_nonzero(pc.equal(column, split)).to_numpy() for split in SPLITS}
    rows = whole.remove_columns("split")
    return DatasetDict({split: _rows(rows, found) for split, found in places.items() if len(found)})


def _rows(whole: Dataset, places: np.ndarray) -> Dataset:
    """Some rows; a view where they follow each other."""
    first, last = int(places[0]), int(places[-1])
    together = last - first + 1 == len(places)
    return whole.select(range(first, last + 1) if together else places)


# Archives that others have made


def _of_archives(archives: list[str], root: str) -> DatasetDict:
    beside = [] if is_remote(root) else [os.path.join(root, name) for name in NAMES_BESIDE]
    name = files_fingerprint([*(f"{archive}::0+0" for archive in archives), *beside], root, str(VERSION))
    return _kept_splits(name, lambda: _table_of_archives(archives, root))


def _table_of_archives(archives: list[str], root: str) -> pa.Table:
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        bar = tqdm(pool.map(_images_of, archives), total=len(archives), desc="Reading archives", unit="file", delay=1)
        by_archive = dict(zip(archives, bar))
    found = [image for images in by_archive.values() for image in images]
    if len({image.file_name for image in found}) < len(found):  # each archive begins to count anew
        for archive, images in by_archive.items():
            for image in images:
                image.file_name = f"{PurePosixPath(archive).name}/{image.file_name}"
    if not found:
        raise UsageError(f"{root} holds no images: {counted(len(archives), 'archive')} without one.")
    refuse_odd_names([image.file_name for image in found], root)
    _name_classes(found, root)
    found.sort(key=_as_in_folders)
    columns = {name: pa.array([getattr(image, name) for image in found], pa.string()) for name in COLUMNS}
    return _with_images(pa.table(columns), pa.array([image.place for image in found], pa.string()))


def _as_in_folders(image: _Found) -> tuple[int, tuple[str, ...], str]:
    """The order in which the same images lie in folders."""
    path = PurePosixPath(image.file_name)
    return SPLITS.index(image.split), path.parts[:-1], path.name


def _images_of(archive: str) -> list[_Found]:
    """The images of an archive in the order in which they lie there."""
    try:
        with _opened(archive) as file:
            zipped = archive.lower().endswith(".zip")
            samples = _samples(_members_of_zip(archive, file) if zipped else _members_of_tar(archive, file), file)
    except UsageError:
        raise
    except Exception as error:  # tarfile and zipfile raise many kinds
        raise UsageError(
            f"{archive} is damaged, or no archive of its kind ({first_line(error)}): fetch or copy it again."
        ) from None
    of_shard = split_named(re.sub(r"\d+", "", PurePosixPath(archive).stem)) or split_named(
        PurePosixPath(archive).parent.name
    )
    return [_found(name, member, sample, of_shard) for sample in samples for name, member in sample.images.items()]


def _opened(name: str) -> IO[bytes]:
    if not is_remote(name):
        return open(name, "rb")
    system, path = file_system(name)
    opened: IO[bytes] = system.open(path, "rb")
    return opened


def _members_of_tar(archive: str, file: IO[bytes]) -> Iterator[tuple[str, Member]]:
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


def _members_of_zip(archive: str, file: IO[bytes]) -> Iterator[tuple[str, Member]]:
    with zipfile.ZipFile(file) as opened:
        infos = [info for info in opened.infolist() if not info.is_dir()]
    for info in infos:
        if info.flag_bits & ENCRYPTED or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            why = "encrypted" if info.flag_bits & ENCRYPTED else "compressed in a way that is not read"
            raise UsageError(f"{archive}: {info.filename} is {why}. Unpack it, and zip it anew.")
        file.seek(info.header_offset)
        head = file.read(HEADER_SIZE)
        if head[:4] != LOCAL_HEADER:
            raise zipfile.BadZipFile(f"{info.filename} is not where it should be")
        name_size, extra_size = struct.unpack("<HH", head[26:30])
        start = info.header_offset + HEADER_SIZE + name_size + extra_size
        yield info.filename, Member(archive, start, info.compress_size, info.compress_type == zipfile.ZIP_DEFLATED)


def _samples(members: Iterator[tuple[str, Member]], file: IO[bytes]) -> list[_Sample]:
    """Members by their key: the path up to the first dot of the name, as WebDataset has it."""
    samples: dict[str, _Sample] = {}
    later: list[tuple[str, str, Member]] = []
    for name, member in members:
        path = PurePosixPath(name)
        if path.name.startswith(".") or set(path.parts) & set(LITTER):
            continue
        key = str(path.with_name(path.name.partition(".")[0]))
        if path.name.lower().endswith(IMAGE_SUFFIXES):
            samples.setdefault(key, _Sample()).images[str(path)] = member
        elif path.suffix.lower() in METADATA and member.size <= LARGEST_METADATA:
            later.append((key, path.suffix.lower(), member))
    for key, kind, member in later:
        if key in samples:
            file.seek(member.offset)
            content = file.read(member.size)
            samples[key].metadata[kind] = inflated(content) if member.deflated else content
    return list(samples.values())


def _found(name: str, member: Member, sample: _Sample, of_shard: str | None) -> _Found:
    """What is known of an image: by the metadata beside it, else by its folders."""
    told = _told(sample, name)
    folders = PurePosixPath(name).parts[:-1]
    split = next((found for folder in folders if (found := split_named(folder))), None)
    classes = [folder for folder in folders if not split_named(folder)]
    label = told.get("label", classes[-1] if classes else None)
    return _Found(
        str(member),
        str(told.get("file_name", name)),
        split_named(str(told.get("split", ""))) or of_shard or split or "train",
        None if label is None else str(label),
        None if told.get("group") is None else str(told["group"]),
    )


def _told(sample: _Sample, name: str) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if ".cls" in sample.metadata:
        told["label"] = sample.metadata[".cls"].decode("utf-8", "replace").strip()
    if ".json" in sample.metadata:
        try:
            found = json.loads(sample.metadata[".json"])
        except (ValueError, RecursionError):
            raise UsageError(f"The JSON beside {name} is damaged.") from None
        if isinstance(found, dict):
            told |= {key: found[key] for key in ("label", "file_name", "split", "group") if found.get(key) is not None}
    return told


def _name_classes(found: list[_Found], root: str) -> None:
    """Gives numbered classes their names, where a file beside the archives has them, a line each."""
    labels = {image.label for image in found}
    if None in labels or not all(str(label).isdecimal() for label in labels):
        return
    beside = [path for name in NAMES_BESIDE if (path := Path(root) / name).is_file()] if not is_remote(root) else []
    if not beside:
        return
    names = beside[0].read_text(encoding="utf-8-sig").splitlines()
    if max(map(int, filter(None, labels))) >= len(names):
        raise UsageError(f"{beside[0]} names {counted(len(names), 'class', 'classes')}, and {root} has more.")
    for image in found:
        image.label = names[int(str(image.label))]
