"""Reads members of tar and zip archives without extracting the archive.

A member has a name like a file has a path: `ARCHIVE::OFFSET+SIZE`, followed by `z` if its bytes are deflated. The
archive is a local path or a URL that fsspec opens (`s3://...`, `https://...`).
"""

import os
import re
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..errors import UsageError, summarize_exception
from .frame_names import file_of_frame
from .messages import FileMessage
from .redaction import hide_credentials, redact, restore_credentials
from .remote_versions import forget_versions, watch_versions

MEMBER_PATTERN = re.compile(
    r"(?P<archive>.+)::(?P<offset>\d{1,19})\+(?P<size>\d{1,19})(?P<deflated>z?)"
    r"(?:#frame=\d{1,9})?",  # a frame of a member is read from its bytes
    re.DOTALL,
)
ARCHIVE_SUFFIXES = (".tar", ".zip")  # archives with random access to their members
TABLE_SUFFIX = ".parquet"  # tables with random access to their images
MAX_MEMBER_BYTES = 1_000_000_000  # decompressed size
MAX_DENSE_BYTES, MAX_EXPANSION = 200_000_000, 100  # above this size, data may expand this many times


@dataclass(frozen=True)
class Member:
    """Position of a file in an archive."""

    archive: str
    offset: int
    size: int
    deflated: bool

    def __str__(self) -> str:
        return f"{self.archive}::{self.offset}+{self.size}{'z' * self.deflated}"


def parse_member(name: str) -> Member | None:
    """Parses the name of a member; returns None for the path of a file."""
    match = MEMBER_PATTERN.fullmatch(name) if "::" in name else None
    if match is None:
        return None
    return Member(match["archive"], int(match["offset"]), int(match["size"]), bool(match["deflated"]))


def is_remote(name: str) -> bool:
    """Whether a name is a URL for fsspec rather than a local path."""
    return "://" in name


def read_member(member: Member) -> bytes:
    """Reads the content of a member.

    Raises:
        OSError: If the archive does not exist, is truncated, or contains invalid data.
        UsageError: If a remote archive has changed since its state was read.
    """
    if member.size > MAX_MEMBER_BYTES:
        raise OSError(f"larger than {MAX_MEMBER_BYTES:,} bytes")
    content = _read_remote(member) if is_remote(member.archive) else _pread(member)
    if len(content) < member.size:
        raise OSError(f"{os.path.basename(member.archive)} is truncated")
    return decompress_deflate(content) if member.deflated else content


def _read_remote(member: Member) -> bytes:
    """Reads bytes of the version of an archive whose members were listed; see `watch_versions` for http."""
    with convert_remote_errors():
        system, path = file_system(member.archive)
        _check_remote_state(member.archive)
        if "s3" in system.protocol:  # only files request the version that they had when they were opened
            file = _open_remote(member.archive, threading.get_ident())
            file.seek(member.offset)
            return bytes(file.read(member.size))
        return bytes(system.cat_file(path, start=member.offset, end=member.offset + member.size))


@lru_cache(maxsize=256)
def _open_remote(archive: str, thread: int) -> Any:
    system, path = file_system(archive)
    return system.open(path, "rb", cache_type="none")


_remote_states: dict[str, str] = {}  # by URL, when the members were listed


@lru_cache(maxsize=4096)
def _check_remote_state(archive: str) -> None:
    """Checks once per process that an archive is the one whose members were listed.

    Raises:
        UsageError: If it has changed.
    """
    if archive in _remote_states:
        get_remote_file_state(archive)


def _pread(member: Member) -> bytes:
    status = os.stat(member.archive)
    file = _open_archive(member.archive, status.st_ino, status.st_size, status.st_mtime_ns)
    if hasattr(os, "pread"):
        return os.pread(file.fileno(), member.size, member.offset)
    with open(member.archive, "rb") as archive:  # Windows
        archive.seek(member.offset)
        return archive.read(member.size)


@lru_cache(maxsize=64)
def _open_archive(archive: str, *state: int) -> Any:
    """Opens an archive; a changed `state` opens it again. It is closed when it leaves the cache and is not in use."""
    return open(archive, "rb")


def decompress_deflate(content: bytes) -> bytes:
    """Decompresses deflated data.

    Raises:
        OSError: If the data is damaged or expands to more than `MAX_MEMBER_BYTES`, or to a bomb.
    """
    limit = min(MAX_MEMBER_BYTES, max(MAX_DENSE_BYTES, MAX_EXPANSION * len(content)))
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        decompressed = decompressor.decompress(content, limit)
    except zlib.error as error:
        raise OSError(f"the archive is damaged ({error})") from None
    if decompressor.unconsumed_tail:
        raise OSError(f"larger than {limit:,} bytes")
    return decompressed


def file_system(url: str) -> tuple[Any, str]:
    """Returns the fsspec file system of a URL, and the path in it.

    Raises:
        UsageError: If the password of the URL was removed, and is not known.
    """
    return _open_file_system(restore_credentials(url))


@lru_cache(maxsize=4096)
def _open_file_system(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    system, path = url_to_fs(url)
    if "http" in system.protocol:
        watch_versions(system)
    return system, path


if hasattr(os, "register_at_fork"):  # DataLoader workers need their own connections
    for cache in (_open_file_system, _open_remote, _check_remote_state):
        os.register_at_fork(after_in_child=cache.cache_clear)


@contextmanager
def convert_remote_errors() -> Iterator[None]:
    """Within the block, converts the exceptions of remote file systems (each client library has its own) to OSError,
    without passwords and tokens."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        if type(error).__name__ == "FileExpired":  # of s3fs, an OSError
            raise UsageError(FileMessage.REMOTE_FILE_CHANGED, url=getattr(error, "filename", "The archive")) from None
        if isinstance(error.__cause__, UsageError):  # fsspec hides it
            raise error.__cause__ from None
        if isinstance(error, OSError):
            error.args = tuple(redact(value) if isinstance(value, str) else value for value in error.args)
            raise
        raise OSError(redact(summarize_exception(error))) from error


def get_remote_file_state(url: str) -> str:
    """Returns a key that changes with a remote file (size, ETag, modification time), without reading the file.

    Raises:
        OSError: If the file cannot be accessed.
        UsageError: If it has changed since its state was read first; `forget_remote_states` accepts another one.
    """
    state = _read_remote_state(url)
    if _remote_states.setdefault(url, state) != state:
        raise UsageError(FileMessage.REMOTE_FILE_CHANGED, url=url)
    return state


def forget_remote_states(uri: str) -> None:
    """Accepts the present versions of the remote files in a folder, or next to a file or pattern."""
    folder = re.split(r"[*?]", hide_credentials(uri))[0].rpartition("/")[0]
    for url in [url for url in _remote_states if url.startswith(folder)]:
        del _remote_states[url]
    forget_versions(re.sub("//[^/]*@", "//", folder))
    for cache in (_open_remote, _check_remote_state):
        cache.cache_clear()


def _read_remote_state(url: str) -> str:
    with convert_remote_errors():
        system, path = file_system(url)
        info = system.info(path)
    names = ("size", "ETag", "etag", "blob_id", "mtime", "LastModified", "last_modified", "Last-Modified", "created")
    return "\0".join(str(info.get(name)) for name in names)


def all_files_exist(names: Iterable[str]) -> bool:
    """Whether every name is an existing file, or a member of an existing archive."""
    archives = set()
    for name in names:
        if (member := parse_member(name)) is not None:
            archives.add(member.archive)
        elif not os.path.isfile(file_of_frame(name)):
            return False
    return all_archives_exist(archives)


def all_archives_exist(archives: Iterable[str]) -> bool:
    """Whether every archive is an existing file or a URL."""
    return all(is_remote(archive) or os.path.isfile(archive) for archive in archives)


def stored_sizes(names: Iterable[str]) -> list[int]:
    """Returns the stored size of each file or member in bytes."""
    return [member.size if (member := parse_member(name)) else os.path.getsize(file_of_frame(name)) for name in names]


def archives_and_sizes(names: Any) -> tuple[list[str], Any] | None:
    """Returns the archives and the member sizes of an Arrow column of names, or None if they are not all members.

    Arrow processes millions of names in seconds, without Python objects.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not len(names) or names.null_count or parse_member(names[0].as_py()) is None:
        return None
    if not pc.all(pc.match_substring(names, "::")).as_py():
        return None
    archives = pc.unique(pc.list_element(pc.split_pattern(names, "::", max_splits=1, reverse=True), 0))
    sizes = pc.list_element(pc.split_pattern(names, "+", max_splits=1, reverse=True), 1)
    if pc.any(pc.match_substring(sizes, "#")).as_py():  # frames of members
        sizes = pc.list_element(pc.split_pattern(sizes, "#"), 0)
    return archives.to_pylist(), pc.ascii_rtrim(sizes, "z").cast(pa.int64())
