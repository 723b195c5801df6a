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
from collections import ChainMap, Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, groupby
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, Value
from tqdm.auto import tqdm

from ...errors import UsageError, first_error_line
from ...files.archive_members import (
    ARCHIVE_SUFFIXES,
    MAX_MEMBER_BYTES,
    TABLE_SUFFIX,
    Member,
    convert_remote_errors,
    decompress_deflate,
    file_system,
    is_remote,
)
from ...files.caches import cached_file, files_fingerprint
from ...settings.limits import count_usable_cores
from ..columns import arrow_column
from ..messages import DataMessage
from .image_files import IGNORED_DIRS, check_utf8_names, ignore_reason, readable_suffixes
from .kinds import DIGEST_COLUMN, Samples, SourceKind, SourceOptions
from .location import COMPRESSED, HEAD_BYTES, PARQUET, ZIP, Location, local_file_type, sniff
from .samples import join_names
from .tables import (
    LABEL_COLUMNS,
    PATIENT_COLUMN,
    find_split_columns,
    normalize_class_name,
    parse_label,
    posix_paths,
    unique_keys,
)

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
ZIP_ENCRYPTED_FLAG, ZIP_UTF8_FLAG = 0x1, 0x800
BATCH_ROWS = 50_000  # rows that are written to the cache at once
STATED_COLUMNS = ("label", "split", "group")
CLASS_NAME_FILES = ("classes.txt", "classnames.txt")  # class names for archives with numeric labels
METADATA_SUFFIXES = (".cls", ".json")  # of WebDataset's sidecar files
MAX_METADATA_BYTES = 1_000_000
LAYOUT_VERSION = 4  # of the cached lists of members


# The index of `hf-mae shard`


def _is_indexed(location: Location, options: SourceOptions) -> bool:
    """Whether a folder has an index of `hf-mae shard`, perhaps a damaged one."""
    if location.is_remote:
        is_file = location.uri.lower().endswith((*ARCHIVE_SUFFIXES, TABLE_SUFFIX)) or "*" in location.uri
        return not is_file and location.has_remote_file(INDEX_FILE)
    path = location.path / INDEX_FILE
    if not location.is_folder or not path.is_file():
        return False
    if local_file_type(str(path)) != PARQUET:
        return True
    try:
        return b"hf_mae" in (pq.read_schema(path).metadata or {})
    except (OSError, ValueError, pa.ArrowException):
        return True


def _read_indexed(location: Location, options: SourceOptions) -> Samples:
    data = _load_indexed(f"{location.root}/{INDEX_FILE}", location.root)
    return Samples(
        _image_columns(data),
        paths=partial(_column_values, data, "file_name"),
        stated={name: partial(_column_values, data, name) for name in STATED_COLUMNS if name in data.column_names},
        is_final=True,
        labels_required=True,
    )


def _image_columns(data: Dataset) -> Dataset:
    names = ("image", "file_name", DIGEST_COLUMN)
    return data.select_columns([name for name in names if name in data.column_names])


def _column_values(data: Dataset, name: str) -> list[Any]:
    return arrow_column(data, name).to_pylist()


def _load_indexed(index: str, root: str) -> Dataset:
    """Loads the images of an index, memory-mapped from the cache."""
    metadata, _ = _read_index_metadata(index)
    archives = {name: f"{root}/{name}" for name in metadata["shards"]}
    _check_shard_sizes(archives, metadata["shards"], index)
    files = [index, *archives.values()]
    cache_key = files_fingerprint([f"{file}::0+0" for file in files], json.dumps(metadata))
    return _load_cached(cache_key, lambda: (_read_index_table(index, root, set(archives)), Counter()))[0]


def _read_index_metadata(index: str) -> tuple[dict[str, Any], int]:
    """Returns the metadata of an index, and its number of images."""
    try:
        with open_binary(index) as file:
            stored = pq.read_metadata(file)
        metadata = json.loads((stored.metadata or {}).get(b"hf_mae", b"null"))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(DataMessage.INDEX_DAMAGED, index=index, reason=first_error_line(error)) from None
    if not _is_current_index(metadata) or stored.schema.to_arrow_schema().names != INDEX_SCHEMA.names:
        raise UsageError(DataMessage.INDEX_INCOMPATIBLE, index=index)
    return metadata, stored.num_rows


def _is_current_index(metadata: Any) -> bool:
    """Whether the metadata of an index has this version and only refers to shards in the same folder."""
    if (
        not isinstance(metadata, dict)
        or metadata.get("version") != INDEX_VERSION
        or not isinstance(metadata.get("shards"), dict)
    ):
        return False
    return all(name == os.path.basename(name) and name.endswith(".tar") for name in metadata["shards"])


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
        with open_binary(index) as file:
            rows = pq.read_table(file)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(DataMessage.INDEX_DAMAGED, index=index, reason=first_error_line(error)) from None
    if rows.schema.types != INDEX_SCHEMA.types or set(rows["shard"].unique().to_pylist()) - shards:
        raise UsageError(DataMessage.INDEX_UNKNOWN_SHARDS, index=index)
    if empty := [name for name in ("shard", "offset", "size", "file_name", "split") if rows[name].null_count]:
        raise UsageError(DataMessage.INDEX_DAMAGED, index=index, reason=f"empty cells in {', '.join(empty)}")
    names = rows["shard"].combine_chunks().cast(pa.string())
    offset_and_size = [rows[name].combine_chunks().cast(pa.string()) for name in ("offset", "size")]
    archives = pc.binary_join_element_wise(pa.scalar(root), names, "/")
    paths = pc.binary_join_element_wise(archives, pc.binary_join_element_wise(*offset_and_size, "+"), "::")
    incomplete = [name for name in ("label", "group", DIGEST_COLUMN) if rows[name].null_count]
    return _add_image_column(rows.drop_columns(["shard", "offset", "size", *incomplete]), paths)


def _add_image_column(rows: pa.Table, paths: Any) -> pa.Table:
    paths = paths.combine_chunks() if isinstance(paths, pa.ChunkedArray) else paths
    images = pa.StructArray.from_arrays([pa.nulls(len(rows), pa.binary()), paths], names=["bytes", "path"])
    return pa.table({"image": images, **{name: rows[name] for name in rows.column_names}})


def _load_cached(cache_key: str, build: Callable[[], tuple[pa.Table, Counter[str]]]) -> tuple[Dataset, Counter[str]]:
    """Loads a table of images, memory-mapped from the cache, and the counts of ignored files; `build` makes them if the
    cache has no such entry."""

    def write(path: Path) -> None:
        table, ignored = build()
        features = Features({name: Image() if name == "image" else Value("string") for name in table.column_names})
        schema = features.arrow_schema
        schema = schema.with_metadata((schema.metadata or {}) | {b"ignored": json.dumps(ignored).encode()})
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
            for batch in table.cast(schema).to_batches(max_chunksize=BATCH_ROWS):
                writer.write_batch(batch)

    path = str(cached_file(f"indexes/{cache_key}.arrow", write))
    with pa.memory_map(path) as file:
        ignored = json.loads(pa.ipc.open_stream(file).schema.metadata[b"ignored"])
    return Dataset.from_file(path), Counter(ignored)


# Archives without an index


@dataclass
class _ArchiveImage:
    """An image in an archive. `label`, `split` (by column) and `group` are the values of sidecar files, as JSON."""

    path: str  # archive, offset and size (`files.archive_members.Member`)
    file_name: str
    container: str
    member: str | None = None  # its name in the archive, if a sidecar file has another one
    prefix: str = ""  # of `file_name`, if archives have the same names
    label: str | None = None
    split: str | None = None
    group: str | None = None
    class_id: str | None = None  # of the .cls file, if the .json file has another label


@dataclass
class _Scan:
    """The images of an archive, the number of other files by reason, and the files of class names in it."""

    images: list[_ArchiveImage]
    ignored: Counter[str]
    class_names: dict[str, list[str]]


@dataclass
class _MemberGroup:
    """The members with the same key: the path up to the first dot of the name, as in WebDataset."""

    images: dict[str, Member] = field(default_factory=dict)  # by name; if a tar file repeats a name, the last member
    sidecars: dict[str, dict[str, Member]] = field(
        default_factory=lambda: defaultdict(dict)
    )  # suffix -> name -> member


def _is_archive(location: Location, options: SourceOptions) -> bool:
    """Whether a location is a tar or zip file, or a folder or URL of these without other images."""
    if location.is_folder and location.tree.images:
        return False
    return bool(location.archives) or (location.exists and location.file_type == COMPRESSED)


def _read_archives(location: Location, options: SourceOptions) -> Samples:
    if location.exists and location.file_type == COMPRESSED:
        raise UsageError(DataMessage.TAR_COMPRESSED, archive=location.uri)
    root = location.uri if location.is_remote else str(location.path.resolve())
    files = [f"{archive}::0+0" for archive in location.archives]
    class_names = _find_class_names(location)
    cache_key = files_fingerprint(files, root, json.dumps([LAYOUT_VERSION, class_names]))
    try:
        with convert_remote_errors():
            data, ignored = _load_cached(cache_key, lambda: _build_table(location, root, class_names))
    except OSError as error:
        raise UsageError(DataMessage.SOURCE_UNREACHABLE, source=root, reason=first_error_line(error)) from None
    stated = {name: partial(_decode_values, data, name) for name in ("label", "group") if name in data.column_names}
    if options.group_column not in (None, "group"):  # sidecar files only have `group`
        stated.pop("group", None)
    if "split" in data.column_names:
        columns = _decode_values(data, "split")
        names = dict.fromkeys(chain.from_iterable(filter(None, columns)))
        stated |= {name: partial(lambda name: [(row or {}).get(name) for row in columns], name) for name in names}
    return Samples(
        _image_columns(data),
        paths=partial(_paths_in_archives, data),
        stored_paths=partial(_column_values, data, "member") if "member" in data.column_names else None,
        stated=stated,
        containers=partial(_column_values, data, "container"),
        locate=lambda row, column: f"{root}, {arrow_column(data, 'file_name')[row].as_py()}, {column}",
        excluded=ignored + location.count_others([*location.archives, *class_names]),
    )


def _paths_in_archives(data: Dataset) -> list[str]:
    """Returns the names of the images, without the name of the archive that was prepended to make them unique."""
    names, prefixes = (_column_values(data, name) for name in ("file_name", "prefix"))
    names = [name.removeprefix(prefix) for name, prefix in zip(names, prefixes)]
    return posix_paths(names) if "member" in data.column_names else [name.lstrip("/") for name in names]


def _decode_values(data: Dataset, name: str) -> list[Any]:
    texts = _column_values(data, name)
    values = {text: json.loads(text) for text in set(texts) if text is not None}
    return [values.get(text) for text in texts]


def _find_class_names(location: Location) -> dict[str, list[str]]:
    """Reads the files of class names in the folder of the archives."""
    folder = location.uri.rstrip("/") if location.is_remote else str(location.path.resolve())
    if location.archives == [folder] or "*" in os.path.basename(folder) and location.is_remote:
        folder = os.path.dirname(folder)
    found = {}
    for path in (f"{folder}/{name}" for name in CLASS_NAME_FILES):
        try:
            with convert_remote_errors(), open_binary(path) as file:
                found[path] = _parse_class_names(file.read(MAX_METADATA_BYTES))
        except OSError:  # no such file; some servers forbid to look for one
            continue
    return found


def _parse_class_names(content: bytes) -> list[str]:
    return [line.rstrip("\r") for line in content.decode("utf-8-sig").rstrip("\n").split("\n")]


def _build_table(location: Location, root: str, class_names: dict[str, list[str]]) -> tuple[pa.Table, Counter[str]]:
    """Lists the images of all archives, in the order of the same images in folders."""
    with ThreadPoolExecutor(min(16, count_usable_cores())) as pool:
        containers = [location.relative(archive) for archive in location.archives]
        scans = pool.map(_scan_archive, location.archives, containers)
        progress = list(tqdm(scans, total=len(containers), desc="Reading archives", unit="file", delay=1))
    images = [image for scan in progress for image in scan.images]
    if len({image.file_name for image in images}) < len(images):  # the archives use the same names
        base_names = {container: PurePosixPath(container).name for container in containers}
        is_unique = len(set(base_names.values())) == len(base_names)
        for image in images:
            image.prefix = f"{base_names[image.container] if is_unique else image.container}/"
            image.file_name = f"{image.prefix}{image.file_name}"
    if not images:
        raise UsageError(DataMessage.ARCHIVES_WITHOUT_IMAGES, root=root, count=len(containers))
    check_utf8_names([image.file_name for image in images], root)
    _apply_class_names(images, root, class_names | dict(ChainMap(*(scan.class_names for scan in progress))))
    images.sort(key=_folder_sort_key)
    names = ("file_name", "member", "container", "prefix", *STATED_COLUMNS)
    columns = {name: pa.array([getattr(image, name) for image in images], pa.string()) for name in names}
    table = pa.table({name: values for name, values in columns.items() if values.null_count < len(images)})
    ignored = sum((scan.ignored for scan in progress), Counter())
    return _add_image_column(table, pa.array([image.path for image in images], pa.string())), ignored


def _folder_sort_key(image: _ArchiveImage) -> tuple[tuple[str, ...], str]:
    """Returns the sort key that gives the same order as the same images in folders."""
    path = PurePosixPath(image.file_name)
    return path.parts[:-1], path.name


def _scan_archive(archive: str, container: str) -> _Scan:
    """Lists the images of an archive, in the order of its members, and counts the other files."""
    ignored: Counter[str] = Counter()
    class_files: dict[str, Member] = {}
    try:
        with open_binary(archive) as file:
            is_zip, members = _iter_members(archive, file, ignored)
            groups = _group_members(members, ignored, class_files)
            for key, group in groups.items():
                _check_key(archive, key, group, is_zip)
            images = [
                _make_image(name, member, group, container, file, ignored)
                for group in groups.values()
                for name, member in group.images.items()
            ]
            class_names = {
                f"{container}/{name}": _parse_class_names(_read_content(member, file))
                for name, member in class_files.items()
            }
    except UsageError:
        raise
    except Exception as error:  # tarfile and zipfile raise many exception classes
        raise UsageError(DataMessage.ARCHIVE_DAMAGED, archive=archive, reason=first_error_line(error)) from None
    return _Scan(images, ignored, class_names)


def iter_archive_images(archive: str, file: IO[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Reads an open archive from start to end: name and undecoded image of each image.

    The sidecar files of an image must be next to it, as in WebDataset's files.
    """
    ignored: Counter[str] = Counter()
    is_zip, members = _iter_members(archive, file, ignored)
    for _, consecutive in groupby(_load_members(members, file), key=lambda item: _member_key(PurePosixPath(item[0]))):
        for key, group in _group_members(consecutive, ignored, {}).items():
            _check_key(archive, key, group, is_zip)
            for path, member in group.images.items():
                name = _read_sidecars(group, path, file).get("file_name") or path
                yield str(name), {"bytes": _read_content(member, file), "path": path}


@dataclass(frozen=True)
class _LoadedMember(Member):
    """A member whose content is in memory."""

    content: bytes


def _load_members(members: Iterator[tuple[str, Member]], file: IO[bytes]) -> Iterator[tuple[str, Member]]:
    """Reads images and sidecar files when their headers are read."""
    suffixes = (*readable_suffixes(), *METADATA_SUFFIXES)
    for name, member in members:
        if name.lower().endswith(suffixes) and member.size <= MAX_MEMBER_BYTES:
            member = _LoadedMember(**vars(member), content=_read_content(member, file))
        yield name, member


def open_binary(name: str) -> IO[bytes]:
    """Opens a local or remote file."""
    if not is_remote(name):
        return open(name, "rb")
    system, path = file_system(name)
    file: IO[bytes] = system.open(path, "rb")
    return file


def _iter_members(archive: str, file: IO[bytes], ignored: Counter[str]) -> tuple[bool, Iterator[tuple[str, Member]]]:
    """Returns whether an archive is a zip file, and its members."""
    is_zip = sniff(file.read(HEAD_BYTES)) == ZIP
    file.seek(0)
    return is_zip, _iter_zip_members(archive, file) if is_zip else _iter_tar_members(archive, file, ignored)


def _iter_tar_members(archive: str, file: IO[bytes], ignored: Counter[str]) -> Iterator[tuple[str, Member]]:
    """Yields the files of a tar, and the images that are hard links to files in it."""
    files: dict[str, Member] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as tar:
            for info in tar:
                tar.members = []  # type: ignore[attr-defined]  # otherwise tarfile keeps all of them in memory
                if info.isreg() and not info.issparse():
                    member = files[_member_path(info.name)] = Member(archive, info.offset_data, info.size, False)
                    yield info.name, member
                elif info.islnk() and (target := files.get(_member_path(info.linkname))):
                    yield info.name, target
                elif not info.isdir():
                    ignored["links, sparse files and special files"] += 1
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE).strip(tarfile.NUL) or file.tell() - tar.offset < tarfile.BLOCKSIZE:
                raise tarfile.ReadError("its end is missing")
    except tarfile.ReadError as error:
        file.seek(0)
        if sniff(file.read(HEAD_BYTES)) == COMPRESSED:
            raise UsageError(DataMessage.TAR_COMPRESSED, archive=archive) from None
        raise error


def _member_path(name: str) -> str:
    return str(PurePosixPath(name))


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
        yield (
            _zip_member_name(info),
            Member(archive, start, info.compress_size, info.compress_type == zipfile.ZIP_DEFLATED),
        )


def _zip_member_name(info: zipfile.ZipInfo) -> str:
    """Returns the name of a member. Many programs store UTF-8 without the flag, which `zipfile` reads as cp437."""
    name = info.filename
    if not info.flag_bits & ZIP_UTF8_FLAG:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name if "/" in name else name.replace("\\", "/")  # as some programs on Windows write it


def _group_members(
    members: Iterator[tuple[str, Member]], ignored: Counter[str], class_files: dict[str, Member]
) -> dict[str, _MemberGroup]:
    """Groups images and their sidecar files by key, finds the files of class names, and counts the other files."""
    groups: dict[str, _MemberGroup] = defaultdict(_MemberGroup)
    suffixes = readable_suffixes()
    for name, member in members:
        path = PurePosixPath(name)
        if any((part[:1] == "." and part != "..") or part in IGNORED_DIRS for part in path.parts[:-1]):
            ignored["files in hidden folders"] += 1
            continue
        group = groups[_member_key(path)]
        suffix = path.suffix.lower()
        reason = ignore_reason(path.name, suffixes)
        if suffix in METADATA_SUFFIXES and member.size <= MAX_METADATA_BYTES:
            group.sidecars[suffix][str(path)] = member
        elif str(path) in CLASS_NAME_FILES:
            class_files[str(path)] = member
        elif reason:
            ignored[reason] += 1
        else:
            group.images[str(path)] = member
    for group in groups.values():
        for suffix, files in group.sidecars.items() if not group.images else ():
            ignored[f"{suffix} files without an image"] += len(files)
    return groups


def _member_key(path: PurePosixPath) -> str:
    return str(path.with_name(path.name.partition(".")[0] or path.name))


def _check_key(archive: str, key: str, group: _MemberGroup, is_zip: bool) -> None:
    """Raises UsageError if a key has several images or labels, so that the label or the mask of an image is unknown."""
    ambiguous = [names for names in group.sidecars.values() if len(names) > 1 and group.images]
    if len(group.images) > 1 and (group.sidecars or (not is_zip and _has_image_of_whole_key(key, group))):
        ambiguous.append(group.images)
    if ambiguous:
        raise UsageError(DataMessage.TAR_KEY_AMBIGUOUS, archive=archive, key=key, members=list(ambiguous[0])[:4])


def _has_image_of_whole_key(key: str, group: _MemberGroup) -> bool:
    """Whether an image has only a suffix after its key, so that the others (`KEY.seg.png`) are parts of its sample."""
    is_whole = [str(PurePosixPath(name).with_suffix("")) == key for name in group.images]
    return any(is_whole) and not all(is_whole)


def _make_image(
    name: str, member: Member, group: _MemberGroup, container: str, file: IO[bytes], ignored: Counter[str]
) -> _ArchiveImage:
    """Makes an image with the values of its sidecar files, and counts values that may be labels or groups."""
    values = _read_sidecars(group, name, file)
    unused = [key for key in values if key != "label" and (key in LABEL_COLUMNS or PATIENT_COLUMN.fullmatch(key))]
    ignored.update(f"values of {key} in .json files (use the keys label and group)" for key in unused)
    encoded = {column: json.dumps(values[column]) for column in STATED_COLUMNS if values.get(column) is not None}
    file_name = str(values.get("file_name") or name)
    other_name = None if file_name == name else name
    return _ArchiveImage(str(member), file_name, container, other_name, **encoded, class_id=values.get("class_id"))


def _read_sidecars(group: _MemberGroup, name: str, file: IO[bytes]) -> dict[str, Any]:
    """Reads the label, and from a .json file also the group and the columns of splits; see `_find_class_id`."""
    values: dict[str, Any] = {}
    if files := group.sidecars.get(".json"):
        (member,) = files.values()
        content = _read_content(member, file)
        try:
            parsed = json.loads(content, object_pairs_hook=lambda pairs: unique_keys(pairs, name))
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            raise UsageError(DataMessage.SIDECAR_JSON_DAMAGED, name=name) from None
        if isinstance(parsed, dict):
            values = {key: value for key, value in parsed.items() if value is not None}
        cells = {key: partial(lambda value: [value], value) for key, value in values.items()}
        values["split"] = {
            key: values[key] for key in find_split_columns(cells, ("file_name", "label", "group"))
        } or None
    if files := group.sidecars.get(".cls"):
        (member,) = files.values()
        label = _read_content(member, file).decode("utf-8-sig").strip()
        values["class_id"] = _find_class_id(label, values.setdefault("label", label), name)
    return values


def _read_content(member: Member, file: IO[bytes]) -> bytes:
    if isinstance(member, _LoadedMember):
        return member.content
    file.seek(member.offset)
    content = file.read(member.size)
    return decompress_deflate(content) if member.deflated else content


def _find_class_id(label: str, other: Any, name: str) -> str | None:
    """Returns the label of a .cls file if the .json file has another one; see `_check_class_ids`."""
    labels = [parse_label(label, f"{name}, .cls"), parse_label(other, f"{name}, .json")]
    return None if labels[0] == labels[1] else labels[0]


def _apply_class_names(images: list[_ArchiveImage], root: str, class_names: dict[str, list[str]]) -> None:
    """Replaces numeric labels by the names in `classes.txt` (one per line), if there is such a file.

    Raises:
        UsageError: If there are several with different names or too few of them, or if a key has two labels.
    """
    path, names = next(iter(class_names.items()), ("", []))
    if other := next((other for other, found in class_names.items() if found != names), None):
        raise UsageError(DataMessage.CLASS_NAMES_DIFFER, root=root, paths=[path, other])
    _check_class_ids(images, names)
    labels = {image.label: "" if image.label is None else str(json.loads(image.label)) for image in images}
    if not names or not all(label.isdecimal() for label in labels.values()):
        return
    max_label = max(map(int, labels.values()))
    if max_label >= len(names):
        raise UsageError(DataMessage.CLASS_NAMES_MISSING, path=path, count=len(names), root=root, label=max_label)
    for image in images:
        image.label = json.dumps(names[int(labels[image.label])])


def _check_class_ids(images: list[_ArchiveImage], names: list[str]) -> None:
    """Raises UsageError if the .cls and .json files of a key have labels that are not id and name of one class."""
    by_id = {str(index): normalize_class_name(name) for index, name in enumerate(names)}
    by_name = {name: number for number, name in by_id.items()}
    for image in images:
        if image.class_id is None:
            continue
        number, name = image.class_id, parse_label(json.loads(str(image.label)), image.file_name)
        if not number.isdecimal():
            number, name = name, number
        is_id = number.isdecimal() and not re.fullmatch(r"[+-]?[\d.]+", name)
        if not is_id or by_id.setdefault(number, name) != name or by_name.setdefault(name, number) != number:
            members = [f".cls: {image.class_id}", f".json: {json.loads(str(image.label))}"]
            key = image.member or image.file_name
            raise UsageError(DataMessage.TAR_KEY_AMBIGUOUS, archive=image.container, key=key, members=members)


def _list_stream_files(location: Location) -> tuple[list[str], int | None]:
    return [*location.archives, *location.tables], None


def _list_indexed_stream_files(location: Location) -> tuple[list[str], int | None]:
    metadata, num_images = _read_index_metadata(f"{location.root}/{INDEX_FILE}")
    return [f"{location.root}/{name}" for name in sorted(metadata["shards"])], num_images


SHARDS = SourceKind(_is_indexed, _read_indexed, is_packed=True, stream_files=_list_indexed_stream_files)
ARCHIVES = SourceKind(_is_archive, _read_archives, is_packed=True, stream_files=_list_stream_files)
