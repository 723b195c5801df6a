"""Where everything is kept that need not be made twice, and the keys by which files are told."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .writing import whole_file

Value = TypeVar("Value")


def cache_folder() -> Path:
    """Where prepared images, verdicts on files, downloads and converted checkpoints are kept: `$HF_HOME/hf_mae`."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "hf_mae"


def kept(
    name: str, make: Callable[[], Value], read: Callable[[Path], Value], write: Callable[[Path, Value], object]
) -> Value:
    """A value that is made once, and read back from the cache afterwards.

    Args:
        name: of its file in the cache, which says all that it depends on (a fingerprint); its suffix is kept.
    """
    path = cache_folder() / name
    if path.is_file():
        return read(path)
    value = make()
    with whole_file(path) as temporary:
        named = temporary.with_name(f"{temporary.name}{path.suffix}")  # numpy adds the suffix where it is missing
        try:
            write(named, value)
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)
    return value


def _state(path: str) -> str:
    """What a file is, without reading it: where it lies, its size and its modification time."""
    try:
        stat = os.stat(path)
    except OSError as error:  # a broken link, say
        return f"{os.path.abspath(path)}\0{error.errno}"
    return f"{os.path.abspath(path)}\0{stat.st_size}\0{stat.st_mtime_ns}"


def files_fingerprint(paths: list[str], *more: str) -> str:
    """Changes when any of the files does (path, size or modification time), or anything of `more`."""
    digest = hashlib.sha256("\0".join(more).encode())
    for path in paths:
        digest.update(f"{_state(path)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def file_key(path: str) -> str:
    """Changes when the file does (path, size or modification time)."""
    return hashlib.blake2b(_state(path).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
