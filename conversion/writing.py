"""Writing that leaves either the whole result or nothing: a temporary sibling, then a rename."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ConversionError


@contextmanager
def whole_folder(destination: str | Path, overwrite: bool) -> Iterator[Path]:
    """Yields a temporary folder beside `destination`, which takes its place when the block ends without an error."""
    destination = Path(destination)
    if destination.is_file():
        raise ConversionError(f"{destination} is a file: name a folder to write to.")
    if destination.is_dir() and any(destination.iterdir()) and not overwrite:
        raise ConversionError(f"{destination} exists and is not empty: choose another folder, or pass --overwrite.")
    temporary = Path(_beside(destination, tempfile.mkdtemp))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        replaced = None
        if destination.is_dir():
            replaced = destination.rename(temporary.with_name(temporary.name + ".replaced"))
        temporary.rename(destination)
        if replaced:
            shutil.rmtree(replaced)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def whole_file(destination: str | Path, overwrite: bool) -> Iterator[Path]:
    """The same for one file."""
    destination = Path(destination)
    if destination.is_dir():
        raise ConversionError(f"{destination} is a folder: name a file to write to.")
    if destination.exists() and not overwrite:
        raise ConversionError(f"{destination} exists: choose another name, or pass --overwrite.")
    handle, name = _beside(destination, tempfile.mkstemp)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)


def _beside(destination: Path, make):
    try:
        destination.absolute().parent.mkdir(parents=True, exist_ok=True)
        return make(prefix=f".{destination.name}.", suffix=".partial", dir=destination.absolute().parent)
    except OSError as error:
        raise ConversionError(f"{destination} cannot be written ({error.strerror}).") from None


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
