"""The cache folder of hf_mae, cached values, and keys that change with files."""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from .archive_members import get_remote_file_state, is_remote, parse_member
from .atomic import atomic_write_file
from .frame_names import file_of_frame

Value = TypeVar("Value")


def cache_folder() -> Path:
    """Returns the folder of decoded images, image checks, downloads and converted checkpoints: `$HF_HOME/hf_mae`."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "hf_mae"


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
    path = cache_folder() / name
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
