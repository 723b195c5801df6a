"""Index of the images in tar and zip archives, local or remote, so that they are read without extraction.

Supported are tar files in WebDataset's layout (`KEY.jpg` with `KEY.cls` or `KEY.json`), and tar and zip files of class
folders, on disk or at any address that fsspec opens. The index has the archive, offset and size of each image.
`hf-mae shard` writes it next to its shards; for other archives it is built once, in one pass over the headers, and
cached.
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

from ...compat.datasets import ArrowWriter
from ...errors import UsageError, first_error_line
from ...files.archive_members import (
    ARCHIVE_SUFFIXES,
    Member,
    convert_remote_errors,
    decompress_deflate,
    file_system,
    is_remote,
)
from ...files.caches import cached_file, files_fingerprint
from ..messages import DataMessage
from ..splits import SPLITS, parse_split_name
from .image_files import IGNORED_DIRS, IMAGE_SUFFIXES, check_utf8_names, walk_images
from .samples import join_names

logger = logging.getLogger(__name__)

INDEX_FILE = "index.parquet"  # next to the shards of `hf-mae shard`
INDEX_VERSION = 1
INDEX_SCHEMA = pa.schema(
    {
        "shard": pa.dictionary(pa.int32(), pa.string()),
        "offset": pa.int64(),
        "size": pa.int64(),
        "file_name": pa.string(),
        "split": pa.string(),
        "label": pa.string(),
        "group": pa.string(),
        "digest": pa.string(),  # hash of the pixels (`image_check.check_decoding`)
    }
)
ZIP_LOCAL_HEADER, ZIP_HEADER_SIZE = b"PK\x03\x04", 30  # signature and size of the header of each member
ZIP_ENCRYPTED_FLAG = 0x1
BATCH_ROWS = 50_000  # rows that are written to the cache at once
DIGEST_COLUMN = "digest"  # hash of the pixels, if it is known
METADATA_COLUMNS = ("file_name", "split", "label", "group")
CLASS_NAME_FILES = ("classes.txt", "classnames.txt")  # class names for archives with numeric labels
METADATA_SUFFIXES = (".cls", ".json")  # of WebDataset's sidecar files
MAX_METADATA_BYTES = 1_000_000


@dataclass
class _ArchiveImage:
    """An image in an archive."""

    path: str  # archive, offset and size (`files.archive_members.Member`)
    file_name: str
    split: str
    label: str | None = None
    group: str | None = None


@dataclass
class _MemberGroup:
    """The members with the same key."""

    images: dict[str, Member] = field(default_factory=dict)  # by name; if a tar file repeats a name, the last member
    metadata: dict[str, bytes] = field(default_factory=dict)


def is_archive_source(source: str) -> bool:
    """Whether a source is an archive of images, a folder of archives (without other images), or a URL."""
    if is_remote(source):
        return True
    path = Path(source)
    if path.is_file():
        return path.name.lower().endswith(ARCHIVE_SUFFIXES)
    if not path.is_dir():
        return False
    return (path / INDEX_FILE).is_file() or (bool(_find_local_archives(path)) and not walk_images(path).images)


def _find_local_archives(root: Path) -> list[str]:
    """Archives in a folder and in its subfolders that are named like splits."""
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
    """Loads splits with `image` and `file_name`, and with `label`, `group` and `digest` if every image has one.

    Raises:
        UsageError: If an archive is missing, damaged or of an unsupported type, or if no image is found.
    """
    if is_remote(source):
        try:
            with convert_remote_errors():
                return _load_remote(source)
        except OSError as error:
            raise UsageError(DataMessage.SOURCE_UNREACHABLE, source=source, reason=first_error_line(error)) from None
    root = Path(source).resolve()
    if (root / INDEX_FILE).is_file():
        return _load_indexed(str(root / INDEX_FILE), str(root))
    return _load_unindexed([str(root)] if root.is_file() else _find_local_archives(root), str(root))


def _load_remote(source: str) -> DatasetDict:
    index = f"{source.rstrip('/')}/{INDEX_FILE}"
    system, path = file_system(source)
    if not _is_archive(path) and system.exists(file_system(index)[1]):
        return _load_indexed(index, source.rstrip("/"))
    paths = [path] if system.isfile(path) else sorted(system.glob(path) if "*" in path else system.find(path))
    archives = [system.unstrip_protocol(path) for path in paths if _is_archive(os.path.basename(path))]
    if not archives:
        raise UsageError(DataMessage.NO_DATA_AT_URL, source=source, suffixes=" or ".join(ARCHIVE_SUFFIXES))
    return _load_unindexed(archives, source)


# The index of `hf-mae shard`


def _load_indexed(index: str, root: str) -> DatasetDict:
    """Loads the splits of an index, memory-mapped from the cache."""
    try:
        with _open_binary(index) as file:
            schema = pq.read_schema(file)
            metadata = json.loads((schema.metadata or {}).get(b"hf_mae", b"null"))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(DataMessage.INDEX_DAMAGED, index=index, reason=first_error_line(error)) from None
    if not _is_current_index(metadata) or schema.names != INDEX_SCHEMA.names:
        raise UsageError(DataMessage.INDEX_INCOMPATIBLE, index=index)
    archives = {name: f"{root}/{name}" for name in metadata["shards"]}
    _check_shard_sizes(archives, metadata["shards"], index)
    files = [index, *archives.values()]
    cache_key = files_fingerprint([f"{file}::0+0" for file in files], json.dumps(metadata))
    return _load_cached_splits(cache_key, lambda: _read_index_table(index, root, set(archives)))


def _is_current_index(metadata: Any) -> bool:
    """Whether the metadata of an index has this version and only refers to shards in the same folder."""
    if (
        not isinstance(metadata, dict)
        or metadata.get("version") != INDEX_VERSION
        or not isinstance(metadata.get("shards"), dict)
    ):
        return False
    return all(name == os.path.basename(name) and _is_archive(name) for name in metadata["shards"])


def _check_shard_sizes(archives: dict[str, str], sizes: dict[str, int], index: str) -> None:
    changed = [name for name, path in archives.items() if _get_size(path) != sizes[name]]
    if changed:
        raise UsageError(DataMessage.SHARDS_CHANGED, index=index, count=len(changed), names=join_names(changed))


def _get_size(archive: str) -> int:
    """Returns the size of an archive in bytes; -1 if it cannot be read."""
    try:
        if is_remote(archive):
            system, path = file_system(archive)
            return int(system.info(path)["size"])
        return os.path.getsize(archive)
    except OSError:
        return -1


def _read_index_table(index: str, root: str, shards: set[str]) -> pa.Table:
    """Reads the rows of an index, with the path of each image within its archive."""
    try:
        with _open_binary(index) as file:
            rows = pq.read_table(file)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(DataMessage.INDEX_DAMAGED, index=index, reason=first_error_line(error)) from None
    if rows.schema.types != INDEX_SCHEMA.types or set(rows["shard"].unique().to_pylist()) - shards:
        raise UsageError(DataMessage.INDEX_UNKNOWN_SHARDS, index=index)
    names = rows["shard"].combine_chunks().cast(pa.string())
    offset_and_size = [rows[name].combine_chunks().cast(pa.string()) for name in ("offset", "size")]
    archives = pc.binary_join_element_wise(pa.scalar(root), names, "/")
    paths = pc.binary_join_element_wise(archives, pc.binary_join_element_wise(*offset_and_size, "+"), "::")
    return _add_image_column(rows.drop_columns(["shard", "offset", "size"]), paths)


def _add_image_column(rows: pa.Table, paths: Any) -> pa.Table:
    paths = paths.combine_chunks() if isinstance(paths, pa.ChunkedArray) else paths
    images = pa.StructArray.from_arrays([pa.nulls(len(rows), pa.binary()), paths], names=["bytes", "path"])
    table = pa.table({"image": images, **{name: rows[name] for name in rows.column_names}})
    optional = ("label", "group", "digest")
    incomplete = [name for name in optional if name in table.column_names and table[name].null_count]
    return table.drop_columns(incomplete)


def _load_cached_splits(cache_key: str, build_table: Callable[[], pa.Table]) -> DatasetDict:
    """Loads one dataset per split, memory-mapped from the cache; `build_table` is called if the cache has no such
    entry."""

    def write(path: Path) -> None:
        table = build_table()
        features = {column: Image() if column == "image" else Value("string") for column in table.column_names}
        with ArrowWriter(features=Features(features), path=str(path), writer_batch_size=BATCH_ROWS) as writer:
            for batch in table.to_batches(max_chunksize=BATCH_ROWS):
                writer.write_table(pa.Table.from_batches([batch]))
            writer.finalize()

    dataset = Dataset.from_file(str(cached_file(f"indexes/{cache_key}.arrow", write)))
    column = dataset.data.column("split")
    rows_by_split = {split: pc.indices_nonzero(pc.equal(column, split)).to_numpy() for split in SPLITS}
    dataset = dataset.remove_columns("split")
    return DatasetDict({split: _select_rows(dataset, rows) for split, rows in rows_by_split.items() if len(rows)})


def _select_rows(dataset: Dataset, rows: np.ndarray) -> Dataset:
    """Selects rows of a dataset; a view if they are contiguous."""
    first, last = int(rows[0]), int(rows[-1])
    is_contiguous = last - first + 1 == len(rows)
    return dataset.select(range(first, last + 1) if is_contiguous else rows)


# Archives without an index


def _load_unindexed(archives: list[str], root: str) -> DatasetDict:
    class_name_files = [] if is_remote(root) else [os.path.join(root, name) for name in CLASS_NAME_FILES]
    files = [*(f"{archive}::0+0" for archive in archives), *class_name_files]
    cache_key = files_fingerprint(files, root, str(INDEX_VERSION))
    return _load_cached_splits(cache_key, lambda: _build_index_table(archives, root))


def _build_index_table(archives: list[str], root: str) -> pa.Table:
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        progress = tqdm(
            pool.map(_scan_archive, archives), total=len(archives), desc="Reading archives", unit="file", delay=1
        )
        images_by_archive = dict(zip(archives, progress))
    images = [image for archive_images in images_by_archive.values() for image in archive_images]
    if len({image.file_name for image in images}) < len(images):  # the archives use the same names
        for archive, archive_images in images_by_archive.items():
            for image in archive_images:
                image.file_name = f"{PurePosixPath(archive).name}/{image.file_name}"
    if not images:
        raise UsageError(DataMessage.ARCHIVES_WITHOUT_IMAGES, root=root, count=len(archives))
    check_utf8_names([image.file_name for image in images], root)
    _apply_class_names(images, root)
    images.sort(key=_folder_sort_key)
    columns = {name: pa.array([getattr(image, name) for image in images], pa.string()) for name in METADATA_COLUMNS}
    return _add_image_column(pa.table(columns), pa.array([image.path for image in images], pa.string()))


def _folder_sort_key(image: _ArchiveImage) -> tuple[int, tuple[str, ...], str]:
    """Returns the sort key that gives the same order as the same images in folders."""
    path = PurePosixPath(image.file_name)
    return SPLITS.index(image.split), path.parts[:-1], path.name


def _scan_archive(archive: str) -> list[_ArchiveImage]:
    """Lists the images of an archive, in the order of its members."""
    try:
        with _open_binary(archive) as file:
            is_zip = archive.lower().endswith(".zip")
            groups = _group_members(
                _iter_zip_members(archive, file) if is_zip else _iter_tar_members(archive, file), file
            )
    except UsageError:
        raise
    except Exception as error:  # tarfile and zipfile raise many exception classes
        raise UsageError(DataMessage.ARCHIVE_DAMAGED, archive=archive, reason=first_error_line(error)) from None
    archive_split = parse_split_name(re.sub(r"\d+", "", PurePosixPath(archive).stem)) or parse_split_name(
        PurePosixPath(archive).parent.name
    )
    return [
        _make_image(name, member, group, archive_split) for group in groups for name, member in group.images.items()
    ]


def _open_binary(name: str) -> IO[bytes]:
    if not is_remote(name):
        return open(name, "rb")
    system, path = file_system(name)
    file: IO[bytes] = system.open(path, "rb")
    return file


def _iter_tar_members(archive: str, file: IO[bytes]) -> Iterator[tuple[str, Member]]:
    try:
        with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # otherwise tarfile keeps all of them in memory
                if member.isreg() and not member.issparse():
                    yield member.name, Member(archive, member.offset_data, member.size, False)
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE).strip(tarfile.NUL) or file.tell() - tar.offset < tarfile.BLOCKSIZE:
                raise tarfile.ReadError("its end is missing")
    except tarfile.ReadError as error:
        file.seek(0)
        if file.read(2) in (b"\x1f\x8b", b"BZ", b"\xfd7"):
            raise UsageError(DataMessage.TAR_COMPRESSED, archive=archive) from None
        raise error


def _iter_zip_members(archive: str, file: IO[bytes]) -> Iterator[tuple[str, Member]]:
    with zipfile.ZipFile(file) as zip_file:
        infos = [info for info in zip_file.infolist() if not info.is_dir()]
    for info in infos:
        if info.flag_bits & ZIP_ENCRYPTED_FLAG:
            raise UsageError(DataMessage.ZIP_MEMBER_ENCRYPTED, archive=archive, member=info.filename)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UsageError(DataMessage.ZIP_COMPRESSION_UNSUPPORTED, archive=archive, member=info.filename)
        file.seek(info.header_offset)
        header = file.read(ZIP_HEADER_SIZE)
        if header[:4] != ZIP_LOCAL_HEADER:
            raise zipfile.BadZipFile(f"{info.filename} is not at its offset")
        name_size, extra_size = struct.unpack("<HH", header[26:30])
        start = info.header_offset + ZIP_HEADER_SIZE + name_size + extra_size
        yield info.filename, Member(archive, start, info.compress_size, info.compress_type == zipfile.ZIP_DEFLATED)


def _group_members(members: Iterator[tuple[str, Member]], file: IO[bytes]) -> list[_MemberGroup]:
    """Groups members by key: the path up to the first dot of the name, as in WebDataset."""
    groups: dict[str, _MemberGroup] = {}
    sidecars: list[tuple[str, str, Member]] = []
    for name, member in members:
        path = PurePosixPath(name)
        if path.name.startswith(".") or set(path.parts) & set(IGNORED_DIRS):
            continue
        key = str(path.with_name(path.name.partition(".")[0]))
        if path.name.lower().endswith(IMAGE_SUFFIXES):
            groups.setdefault(key, _MemberGroup()).images[str(path)] = member
        elif path.suffix.lower() in METADATA_SUFFIXES and member.size <= MAX_METADATA_BYTES:
            sidecars.append((key, path.suffix.lower(), member))
    for key, suffix, member in sidecars:
        if key in groups:
            file.seek(member.offset)
            content = file.read(member.size)
            groups[key].metadata[suffix] = decompress_deflate(content) if member.deflated else content
    return list(groups.values())


def _make_image(name: str, member: Member, group: _MemberGroup, archive_split: str | None) -> _ArchiveImage:
    """Makes an image with the metadata of its sidecar files, or else of its folders."""
    metadata = _parse_sidecar_metadata(group, name)
    folders = PurePosixPath(name).parts[:-1]
    folder_split = next((split for folder in folders if (split := parse_split_name(folder))), None)
    non_split_folders = [folder for folder in folders if not parse_split_name(folder)]
    label = metadata.get("label", non_split_folders[-1] if non_split_folders else None)
    return _ArchiveImage(
        str(member),
        str(metadata.get("file_name", name)),
        parse_split_name(str(metadata.get("split", ""))) or archive_split or folder_split or "train",
        None if label is None else str(label),
        None if metadata.get("group") is None else str(metadata["group"]),
    )


def _parse_sidecar_metadata(group: _MemberGroup, name: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    if ".cls" in group.metadata:
        metadata["label"] = group.metadata[".cls"].decode("utf-8", "replace").strip()
    if ".json" in group.metadata:
        try:
            values = json.loads(group.metadata[".json"])
        except (ValueError, RecursionError):
            raise UsageError(DataMessage.SIDECAR_JSON_DAMAGED, name=name) from None
        if isinstance(values, dict):
            keys = ("label", "file_name", "split", "group")
            metadata |= {key: values[key] for key in keys if values.get(key) is not None}
    return metadata


def _apply_class_names(images: list[_ArchiveImage], root: str) -> None:
    """Replaces numeric labels by the names in `classes.txt` (one per line), if there is such a file."""
    labels = {image.label for image in images}
    if None in labels or not all(str(label).isdecimal() for label in labels) or is_remote(root):
        return
    path = next((path for name in CLASS_NAME_FILES if (path := Path(root) / name).is_file()), None)
    if path is None:
        return
    names = path.read_text(encoding="utf-8-sig").splitlines()
    max_label = max(map(int, filter(None, labels)))
    if max_label >= len(names):
        raise UsageError(DataMessage.CLASS_NAMES_MISSING, path=path, count=len(names), root=root, label=max_label)
    for image in images:
        image.label = names[int(str(image.label))]
