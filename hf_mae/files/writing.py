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
from .locks import let_go, taken

SUFFIX, REPLACED = ".partial", ".replaced"  # of a temporary sibling; behind it, of what it takes the place of
FORMULA = ("=", "+", "-", "@", "\t")  # with which a cell begins that a spreadsheet runs
JUST_MADE = 2.0  # seconds in which a writer comes to hold its temporary sibling


@contextmanager
def whole_folder(destination: str | Path, overwrite: bool, error: type[UsageError] = UsageError) -> Iterator[Path]:
    """Yields a temporary folder beside `destination`, which takes its place when the block ends without an error.

    Raises:
        error: `destination` is a file, holds something that may not be replaced, or cannot be written.
    """
    destination = Path(destination)
    _clear_what_killed_writers_left(destination)
    if destination.is_file():
        raise error(f"{destination} is a file: name a folder to write to.")
    if destination.is_dir() and any(destination.iterdir()) and not overwrite:
        raise error(f"{destination} exists and is not empty: choose another folder, or pass --overwrite.")
    with _said_in_a_sentence(destination, error):
        temporary = Path(tempfile.mkdtemp(**_beside(destination)))
    held = taken(temporary)
    try:
        yield temporary
        open_to_the_umask(temporary)
        replaced = None
        if destination.is_dir():
            replaced = destination.rename(temporary.with_name(temporary.name + REPLACED))
        temporary.rename(destination)
        if replaced:
            shutil.rmtree(replaced)
    finally:
        let_go(held)
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def whole_file(destination: str | Path, overwrite: bool = True, error: type[UsageError] = UsageError) -> Iterator[Path]:
    """Yields a temporary file beside `destination`, which takes its place when the block ends without an error.

    Raises:
        error: `destination` is a folder, exists and may not be replaced, or cannot be written.
    """
    destination = Path(destination)
    _clear_what_killed_writers_left(destination)
    if destination.is_dir():
        raise error(f"{destination} is a folder: name a file to write to.")
    if destination.exists() and not overwrite:
        raise error(f"{destination} exists: choose another name, or pass --overwrite.")
    with _said_in_a_sentence(destination, error):
        handle, name = tempfile.mkstemp(**_beside(destination))
    os.close(handle)
    temporary = Path(name)
    held = taken(temporary)
    try:
        yield temporary
        _flush(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(destination)
    finally:
        let_go(held)
        temporary.unlink(missing_ok=True)


def copy_stream(source: IO[bytes], destination: Path) -> None:
    """Writes what a stream holds into a file of a folder that is being written, whose folders are made."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    with open(destination, "wb") as target:
        shutil.copyfileobj(source, target)


def write_text(destination: str | Path, text: str) -> None:
    """UTF-8, line ends as they are."""
    with whole_file(destination) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(destination: str | Path, values: Any) -> None:
    """Indented JSON; what JSON does not know is written as text."""
    write_text(destination, json.dumps(values, indent=2, ensure_ascii=False, default=str) + "\n")


def write_csv(destination: str | Path, head: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """A head and rows of `csv_line`."""
    with whole_file(destination) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.writelines(csv_line(cells) for cells in [head, *rows])


def csv_line(cells: Iterable[Any]) -> str:
    """A row as the csv module writes it; what a spreadsheet would take for a formula is quoted, too, and nothing is
    changed: names are read back as they are."""
    return ",".join(_csv_cell("" if cell is None else str(cell)) for cell in cells) + "\r\n"


def _csv_cell(text: str) -> str:
    needs = any(letter in text for letter in ',"\r\n') or (text[:1] in FORMULA and not _is_number(text))
    return '"' + text.replace('"', '""') + '"' if text and needs else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_picture(destination: str | Path, picture: Any, overwrite: bool = True) -> None:
    """A PIL image, in the format of the name."""
    from PIL import Image

    with whole_file(destination, overwrite) as temporary:
        picture.save(temporary, format=Image.registered_extensions()[Path(destination).suffix.lower()])


def open_to_the_umask(folder: Path) -> None:
    """Gives a folder and the files in it the permissions that the umask gives (safetensors makes files of 0600, which
    nobody else on a shared disk reads)."""
    mask = _umask()
    folder.chmod(0o777 & ~mask)
    for path in folder.iterdir():
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o777 | 0o666 & ~mask)


def says_disk_full(error: BaseException | None) -> bool:
    """Whether an exception, or what it came from, is a disk without room: an error of the system, or the words of a
    library that writes on its own (safetensors, Arrow, torch's archives, which count bytes and find some missing)."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if _WORDS_OF_A_FULL_DISK.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


_WORDS_OF_A_FULL_DISK = re.compile(
    "|".join(re.escape(os.strerror(number)) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
    + r"|PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+"
)


def _beside(destination: Path) -> dict[str, Any]:
    """Where a temporary sibling goes."""
    destination.absolute().parent.mkdir(parents=True, exist_ok=True)
    return {"prefix": _prefix(destination), "suffix": SUFFIX, "dir": destination.absolute().parent}


def _prefix(destination: Path) -> str:
    return f".{destination.name[:200]}."


def _clear_what_killed_writers_left(destination: Path) -> None:
    """Removes temporary siblings that nobody holds; what one was about to replace, and has taken away, comes back."""
    for left in destination.absolute().parent.glob(f"{glob.escape(_prefix(destination))}????????{SUFFIX}*"):
        writer = left.with_name(left.name[: left.name.rindex(SUFFIX)] + SUFFIX)
        try:
            if time.time() - left.lstat().st_mtime < JUST_MADE:
                continue
        except FileNotFoundError:  # its writer is done meanwhile
            continue
        held = taken(writer)
        if held is None and writer.exists():
            continue
        let_go(held)
        if left.name.endswith(REPLACED) and not destination.exists():
            left.rename(destination)
        elif left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


@contextmanager
def _said_in_a_sentence(destination: Path, error: type[UsageError]) -> Iterator[None]:
    try:
        yield
    except OSError as found:
        raise error(f"{destination} cannot be written ({found.strerror}).") from None


def _flush(path: Path) -> None:
    """Onto the disk, so that the name never stands for less than the whole file, even after a power cut."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
