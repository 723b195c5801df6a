"""The cache folder of hf_mae, cached values, and keys that change with files."""

import hashlib
import logging
import os
import stat
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from ..errors import warn
from .archive_members import get_remote_file_state, is_remote, parse_member
from .atomic import atomic_write_file, find_write_error
from .frame_names import file_of_frame
from .messages import FileMessage

logger = logging.getLogger(__name__)

Value = TypeVar("Value")


def cache_folder() -> Path:
    """Returns the folder of decoded images, image checks, downloads and converted checkpoints: `$HF_HOME/hf_mae`."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "hf_mae"


def cache_path(name: str, for_writing: bool = False) -> Path:
    """Returns the path of an entry of the cache: the file or folder that exists, or where to write it.

    If the cache cannot be written (a shared cache, a container), an entry that is missing is written to a temporary
    folder of this process, with one warning. Entries that another user may have written are not read.

    Args:
        name: path of the entry in the cache.
        for_writing: an entry that exists must also be writable.
    """
    path = cache_folder() / name
    if reason := _distrust_reason(cache_folder()):
        return _temporary_cache(cache_folder(), reason, is_trusted=False) / name
    if path.exists() and not for_writing:
        return path
    reason = find_write_error(path if path.is_dir() else path.parent)
    return path if reason is None else _temporary_cache(cache_folder(), reason) / name


def _distrust_reason(folder: Path) -> str | None:
    """Returns why others may have put entries into a folder; None if only this user, its group and root can."""
    if not hasattr(os, "geteuid"):  # Windows
        return None
    try:
        status = os.stat(folder)
    except OSError:
        return None
    if status.st_uid not in (0, os.geteuid()):
        return f"it belongs to the user {status.st_uid}"
    return "every user can write to it" if status.st_mode & stat.S_IWOTH else None


def datasets_cache_dir() -> str | None:
    """Returns a temporary folder if the cache of `datasets` cannot be written, with one warning; else None."""
    from datasets.config import HF_DATASETS_CACHE

    reason = find_write_error(Path(HF_DATASETS_CACHE))
    return None if reason is None else str(_temporary_cache(Path(HF_DATASETS_CACHE), reason))


_temporary_caches: dict[Path, "tempfile.TemporaryDirectory[str]"] = {}  # by the cache that cannot be written


def _temporary_cache(folder: Path, reason: str, is_trusted: bool = True) -> Path:
    if folder not in _temporary_caches:
        _temporary_caches[folder] = tempfile.TemporaryDirectory(prefix="hf_mae-", ignore_cleanup_errors=True)
        if is_trusted:
            warn(logger, FileMessage.CACHE_NOT_WRITABLE, path=folder, reason=reason)
        else:
            warn(logger, FileMessage.CACHE_NOT_TRUSTED, path=folder, reason=reason)
    return Path(_temporary_caches[folder].name)


def cached(
    name: str, make: Callable[[], Value], read: Callable[[Path], Value], write: Callable[[Path, Value], object]
) -> Value:
    """Returns a cached value; computes and writes it if it is not in the cache.

    Args:
        name: file name in the cache; it must contain a fingerprint of everything that the value depends on.
    """
    computed: list[Value] = []

    def make_and_write(path: Path) -> None:
        computed.append(make())
        write(path, computed[0])

    path = cached_file(name, make_and_write)
    return computed[0] if computed else read(path)


def cached_file(name: str, write: Callable[[Path], object]) -> Path:
    """Returns the path of a cached file; writes it if it does not exist. For `name` see `cached`."""
    path = cache_path(name)
    if not path.is_file():
        with atomic_write_file(path) as temporary:
            with_suffix = temporary.with_name(f"{temporary.name}{path.suffix}")  # numpy adds a missing suffix
            try:
                write(with_suffix)
                with_suffix.replace(temporary)
            finally:
                with_suffix.unlink(missing_ok=True)
    return path


def file_digest(path: Path, algorithm: str) -> str:
    """Computes the hexadecimal digest of a file."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def _file_state(path: str, archives: dict[str, str]) -> str:
    """Returns the absolute path, size and modification time of a file, without reading it.

    Args:
        archives: known states of archives; new ones are added.
    """
    if (member := parse_member(path)) is not None:
        if member.archive not in archives:
            remote = is_remote(member.archive)
            archives[member.archive] = (
                get_remote_file_state(member.archive) if remote else _file_state(member.archive, {})
            )
        return f"{path}\0{archives[member.archive]}"
    try:
        stat = os.stat(file_of_frame(path))
    except OSError as error:  # e.g. a broken link
        return f"{os.path.abspath(path)}\0{error.errno}"
    return f"{os.path.abspath(path)}\0{stat.st_size}\0{stat.st_mtime_ns}"


def files_fingerprint(paths: list[str], *extra_keys: str) -> str:
    """Returns a key that changes with any of the files (path, size or modification time) or of `extra_keys`."""
    digest = hashlib.sha256("\0".join(extra_keys).encode())
    archives: dict[str, str] = {}
    for path in paths:
        digest.update(f"{_file_state(path, archives)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def file_keys(paths: Iterable[str]) -> list[str]:
    """Returns a key for each file that changes with its path, size or modification time."""
    archives: dict[str, str] = {}
    states = (_file_state(path, archives).encode("utf-8", "surrogateescape") for path in paths)
    return [hashlib.blake2b(state, digest_size=16).hexdigest() for state in states]
