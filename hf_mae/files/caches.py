"""Where everything is kept that need not be made twice, and the keys by which files are told."""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from .archive_members import get_remote_file_state, is_remote, parse_member
from .atomic import atomic_write_file

Value = TypeVar("Value")


def cache_folder() -> Path:
    """Where prepared images, verdicts on files, downloads and converted checkpoints are kept: `$HF_HOME/hf_mae`."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "hf_mae"


def cached(
    name: str, make: Callable[[], Value], read: Callable[[Path], Value], write: Callable[[Path, Value], object]
) -> Value:
    """A value that is made once, and read back from the cache afterwards.

    Args:
        name: of its file in the cache, which says all that it depends on (a fingerprint); its suffix is kept.
    """
    made: list[Value] = []

    def make_and_write(path: Path) -> None:
        made.append(make())
        write(path, made[0])

    path = cached_file(name, make_and_write)
    return made[0] if made else read(path)


def cached_file(name: str, write: Callable[[Path], object]) -> Path:
    """A file of the cache that is written once; its `name` as of `kept`."""
    path = cache_folder() / name
    if not path.is_file():
        with atomic_write_file(path) as temporary:
            named = temporary.with_name(f"{temporary.name}{path.suffix}")  # numpy adds the suffix where it is missing
            try:
                write(named)
                named.replace(temporary)
            finally:
                named.unlink(missing_ok=True)
    return path


def _file_state(path: str, archives: dict[str, str]) -> str:
    """What a file is, without reading it: where it lies, its size and its modification time.

    Args:
        archives: what is known of archives already; added to.
    """
    if (member := parse_member(path)) is not None:
        if member.archive not in archives:
            remote = is_remote(member.archive)
            archives[member.archive] = (
                get_remote_file_state(member.archive) if remote else _file_state(member.archive, {})
            )
        return f"{path}\0{archives[member.archive]}"
    try:
        stat = os.stat(path)
    except OSError as error:  # a broken link, say
        return f"{os.path.abspath(path)}\0{error.errno}"
    return f"{os.path.abspath(path)}\0{stat.st_size}\0{stat.st_mtime_ns}"


def files_fingerprint(paths: list[str], *extra_keys: str) -> str:
    """Changes when any of the files does (path, size or modification time), or anything of `extra_keys`."""
    digest = hashlib.sha256("\0".join(extra_keys).encode())
    archives: dict[str, str] = {}
    for path in paths:
        digest.update(f"{_file_state(path, archives)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def file_keys(paths: Iterable[str]) -> list[str]:
    """A text for each, which changes when the file does (path, size or modification time)."""
    archives: dict[str, str] = {}
    states = (_file_state(path, archives).encode("utf-8", "surrogateescape") for path in paths)
    return [hashlib.blake2b(state, digest_size=16).hexdigest() for state in states]
