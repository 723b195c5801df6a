"""Writing that leaves either the whole result or nothing: a temporary sibling, flushed to the disk, then a rename.

Every file that this package writes under its own name goes through here. Permissions are those of the umask. A writer
holds its temporary sibling, so that the next one knows what a killed one has left behind, and clears it away.
"""

import errno
import glob
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..errors import UsageError
from .locks import release_flock, try_flock

TEMP_SUFFIX, REPLACED_SUFFIX = (
    ".partial",
    ".replaced",
)  # of a temporary sibling; behind it, of what it takes the place of
FORMULA_PREFIXES = ("=", "+", "-", "@", "\t")  # with which a cell begins that a spreadsheet runs
MIN_STALE_AGE = 2.0  # seconds in which a writer comes to hold its temporary sibling


@contextmanager
def atomic_write_dir(destination: str | Path, overwrite: bool, error: type[UsageError] = UsageError) -> Iterator[Path]:
    """Yields a temporary folder beside `destination`, which takes its place when the block ends without an error.

    Raises:
        error: `destination` is a file, holds something that may not be replaced, or cannot be written.
    """
    destination = Path(destination)
    _remove_stale_temp_files(destination)
    if destination.is_file():
        raise error(f"{destination} is a file: name a folder to write to.")
    if destination.is_dir() and any(destination.iterdir()) and not overwrite:
        raise error(f"{destination} exists and is not empty: choose another folder, or pass --overwrite.")
    with _reraise_as_usage_error(destination, error):
        temporary = Path(tempfile.mkdtemp(**_temp_sibling_args(destination)))
    held = try_flock(temporary)
    try:
        yield temporary
        apply_umask(temporary)
        replaced = None
        if destination.is_dir():
            replaced = destination.rename(temporary.with_name(temporary.name + REPLACED_SUFFIX))
        temporary.rename(destination)
        if replaced:
            shutil.rmtree(replaced)
    finally:
        release_flock(held)
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def atomic_write_file(
    destination: str | Path, overwrite: bool = True, error: type[UsageError] = UsageError
) -> Iterator[Path]:
    """Yields a temporary file beside `destination`, which takes its place when the block ends without an error.

    Raises:
        error: `destination` is a folder, exists and may not be replaced, or cannot be written.
    """
    destination = Path(destination)
    _remove_stale_temp_files(destination)
    if destination.is_dir():
        raise error(f"{destination} is a folder: name a file to write to.")
    if destination.exists() and not overwrite:
        raise error(f"{destination} exists: choose another name, or pass --overwrite.")
    with _reraise_as_usage_error(destination, error):
        handle, name = tempfile.mkstemp(**_temp_sibling_args(destination))
    os.close(handle)
    temporary = Path(name)
    held = try_flock(temporary)
    try:
        yield temporary
        _fsync(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(destination)
    finally:
        release_flock(held)
        temporary.unlink(missing_ok=True)


def copy_stream(source: IO[bytes], destination: Path) -> None:
    """Writes what a stream holds into a file of a folder that is being written, whose folders are made."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    with open(destination, "wb") as target:
        shutil.copyfileobj(source, target)


def write_text(destination: str | Path, text: str) -> None:
    """UTF-8, line ends as they are."""
    with atomic_write_file(destination) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(destination: str | Path, values: Any) -> None:
    """Indented JSON; what JSON does not know is written as text."""
    write_text(destination, json.dumps(values, indent=2, ensure_ascii=False, default=str) + "\n")


def write_csv(destination: str | Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """A head and rows of `csv_line`."""
    with atomic_write_file(destination) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.writelines(csv_line(cells) for cells in [header, *rows])


def csv_line(cells: Iterable[Any]) -> str:
    """A row as the csv module writes it; what a spreadsheet would take for a formula is quoted, too, and nothing is
    changed: names are read back as they are."""
    return ",".join(_csv_cell("" if cell is None else str(cell)) for cell in cells) + "\r\n"


def _csv_cell(text: str) -> str:
    needs = any(letter in text for letter in ',"\r\n') or (text[:1] in FORMULA_PREFIXES and not _is_number(text))
    return '"' + text.replace('"', '""') + '"' if text and needs else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_image(destination: str | Path, image: Any, overwrite: bool = True) -> None:
    """A PIL image, in the format of the name."""
    from PIL import Image

    with atomic_write_file(destination, overwrite) as temporary:
        image.save(temporary, format=Image.registered_extensions()[Path(destination).suffix.lower()])


def apply_umask(folder: Path) -> None:
    """Gives a folder and the files in it the permissions that the umask gives (safetensors makes files of 0600, which
    nobody else on a shared disk reads)."""
    mask = _umask()
    folder.chmod(0o777 & ~mask)
    for path in folder.iterdir():
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o777 | 0o666 & ~mask)


def is_disk_full_error(error: BaseException | None) -> bool:
    """Whether an exception, or what it came from, is a disk without room: an error of the system, or the words of a
    library that writes on its own (safetensors, Arrow, torch's archives, which count bytes and find some missing)."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if _DISK_FULL_MESSAGES.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


_DISK_FULL_MESSAGES = re.compile(
    "|".join(re.escape(os.strerror(number)) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
    + r"|PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+"
)


def _temp_sibling_args(destination: Path) -> dict[str, Any]:
    """Where a temporary sibling goes."""
    destination.absolute().parent.mkdir(parents=True, exist_ok=True)
    return {"prefix": _temp_prefix(destination), "suffix": TEMP_SUFFIX, "dir": destination.absolute().parent}


def _temp_prefix(destination: Path) -> str:
    return f".{destination.name[:200]}."


def _remove_stale_temp_files(destination: Path) -> None:
    """Removes temporary siblings that nobody holds; what one was about to replace, and has taken away, comes back."""
    for left in destination.absolute().parent.glob(f"{glob.escape(_temp_prefix(destination))}????????{TEMP_SUFFIX}*"):
        writer = left.with_name(left.name[: left.name.rindex(TEMP_SUFFIX)] + TEMP_SUFFIX)
        try:
            if time.time() - left.lstat().st_mtime < MIN_STALE_AGE:
                continue
        except FileNotFoundError:  # its writer is done meanwhile
            continue
        held = try_flock(writer)
        if held is None and writer.exists():
            continue
        release_flock(held)
        if left.name.endswith(REPLACED_SUFFIX) and not destination.exists():
            left.rename(destination)
        elif left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


@contextmanager
def _reraise_as_usage_error(destination: Path, error: type[UsageError]) -> Iterator[None]:
    try:
        yield
    except OSError as found:
        raise error(f"{destination} cannot be written ({found.strerror}).") from None


def _fsync(path: Path) -> None:
    """Onto the disk, so that the name never stands for less than the whole file, even after a power cut."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
