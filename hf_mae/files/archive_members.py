"""Files within tar and zip archives, read at their place: nothing is unpacked.

A member is named by a text, as a file is by its path: `ARCHIVE::OFFSET+SIZE`, with a `z` behind it where its bytes are
deflated. The archive is a path here, or whatever fsspec opens (`s3://...`, `https://...`).
"""

import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..errors import UsageError, summarize_exception

MEMBER_PATTERN = re.compile(r"(?P<archive>.+)::(?P<offset>\d{1,19})\+(?P<size>\d{1,19})(?P<deflated>z?)", re.DOTALL)
ARCHIVE_SUFFIXES = (".tar", ".zip")  # whose members can be reached
TABLE_SUFFIX = ".parquet"  # of tables whose images can be
MAX_MEMBER_BYTES = 1_000_000_000  # bytes of a member, inflated


@dataclass(frozen=True)
class Member:
    """Where the bytes of a file within an archive lie."""

    archive: str
    offset: int
    size: int
    deflated: bool

    def __str__(self) -> str:
        return f"{self.archive}::{self.offset}+{self.size}{'z' * self.deflated}"


def parse_member(name: str) -> Member | None:
    """What a text names; None: it is the path of a file of its own."""
    found = MEMBER_PATTERN.fullmatch(name) if "::" in name else None
    if found is None:
        return None
    return Member(found["archive"], int(found["offset"]), int(found["size"]), bool(found["deflated"]))


def is_remote(name: str) -> bool:
    """Whether fsspec opens it, rather than the file system here."""
    return "://" in name


def read_member(member: Member) -> bytes:
    """Its bytes.

    Raises:
        OSError: the archive is not there, ends before the member does, or holds other bytes.
    """
    if member.size > MAX_MEMBER_BYTES:
        raise OSError(f"it is larger than {MAX_MEMBER_BYTES:,} bytes")
    if is_remote(member.archive):
        with convert_remote_errors():
            system, path = file_system(member.archive)
            content: bytes = system.cat_file(path, start=member.offset, end=member.offset + member.size)
    else:
        content = _pread(member)
    if len(content) < member.size:
        raise OSError(f"{os.path.basename(member.archive)} ends before it does")
    return decompress_deflate(content) if member.deflated else content


def _pread(member: Member) -> bytes:
    status = os.stat(member.archive)
    file = _open_archive(member.archive, status.st_ino, status.st_size, status.st_mtime_ns)
    if hasattr(os, "pread"):
        return os.pread(file.fileno(), member.size, member.offset)
    with open(member.archive, "rb") as own:  # Windows
        own.seek(member.offset)
        return own.read(member.size)


@lru_cache(maxsize=64)
def _open_archive(archive: str, *state: int) -> Any:
    """An archive in the state that it is in; closed when others take its place here and nobody reads it."""
    return open(archive, "rb")


def decompress_deflate(content: bytes) -> bytes:
    """What was deflated.

    Raises:
        OSError: the bytes are damaged, or far too many.
    """
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        found = inflate.decompress(content, MAX_MEMBER_BYTES)
    except zlib.error as error:
        raise OSError(f"its archive is damaged ({error})") from None
    if inflate.unconsumed_tail:
        raise OSError(f"it is larger than {MAX_MEMBER_BYTES:,} bytes")
    return found


@lru_cache(maxsize=4096)
def file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path there."""
    from fsspec.core import url_to_fs

    return url_to_fs(url)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=file_system.cache_clear)  # a loader's process has connections of its own


@contextmanager
def convert_remote_errors() -> Iterator[None]:
    """Within the block, what a remote file system raises (each client library has kinds of its own) is an OSError."""
    try:
        yield
    except (OSError, UsageError):
        raise
    except Exception as error:
        raise OSError(summarize_exception(error)) from error


def get_remote_file_state(url: str) -> str:
    """What a file elsewhere is, without reading it, as far as its file system tells.

    Raises:
        OSError: it cannot be reached.
    """
    with convert_remote_errors():
        system, path = file_system(url)
        info = system.info(path)
    told = [info.get(name) for name in ("size", "ETag", "etag", "mtime", "LastModified", "last_modified", "created")]
    return "\0".join(map(str, told))


def all_files_exist(names: Iterable[str]) -> bool:
    """Whether every one is a file, or a member of an archive that is."""
    archives = set()
    for name in names:
        if (member := parse_member(name)) is not None:
            archives.add(member.archive)
        elif not os.path.isfile(name):
            return False
    return all_archives_exist(archives)


def all_archives_exist(archives: Iterable[str]) -> bool:
    """Whether every archive is a file, or elsewhere."""
    return all(is_remote(archive) or os.path.isfile(archive) for archive in archives)


def stored_sizes(names: Iterable[str]) -> list[int]:
    """Bytes of each, as they are stored."""
    return [member.size if (member := parse_member(name)) else os.path.getsize(name) for name in names]


def archives_and_sizes(names: Any) -> tuple[list[str], Any] | None:
    """Of a column (Arrow) of members: the archives, and the bytes of each member; None: they are files.

    Millions take seconds, and no memory of Python's.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not len(names) or names.null_count or parse_member(names[0].as_py()) is None:
        return None
    if not pc.all(pc.match_substring(names, "::")).as_py():
        return None
    archives = pc.unique(pc.list_element(pc.split_pattern(names, "::", max_splits=1, reverse=True), 0))
    sizes = pc.list_element(pc.split_pattern(names, "+", max_splits=1, reverse=True), 1)
    return archives.to_pylist(), pc.ascii_rtrim(sizes, "z").cast(pa.int64())
