"""Atomic file and folder writes, and reading of text files.

A writer fills a temporary sibling, flushes it to the disk and renames it, so that an interrupted write leaves no
partial result. All files of this package are written here, with the permissions of the umask. A writer locks its
temporary sibling. The next writer removes siblings that are older than a day and not locked: their writer was killed.
"""

import errno
import glob
import json
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .messages import FileMessage

try:
    fcntl: Any = import_module("fcntl")
except ImportError:  # Windows
    fcntl = None

TEMP_SUFFIX = ".partial"  # of a temporary sibling
FORMULA_PREFIXES = ("=", "+", "-", "@", "\t")  # spreadsheets execute cells that start with them
QUOTED = re.compile('[,"\r\n]')  # characters of a CSV cell that needs quotation marks
MAX_TEMP_AGE = 86_400.0  # seconds until an unlocked temporary sibling is removed


@contextmanager
def atomic_write_dir(destination: str | Path, overwrite: bool, error: type[UsageError] = UsageError) -> Iterator[Path]:
    """Yields a temporary folder that replaces `destination` when the block ends without an exception.

    Raises:
        error: If `destination` is a file, must not be replaced, or cannot be written.
    """
    destination = Path(destination)
    _remove_old_temp_files(destination)
    if destination.is_file():
        raise error(FileMessage.IS_A_FILE, path=destination)
    if destination.is_dir() and any(destination.iterdir()) and not overwrite:
        raise error(FileMessage.FOLDER_NOT_EMPTY, path=destination)
    with _reraise_as_usage_error(destination, error):
        temporary = Path(tempfile.mkdtemp(**_temp_sibling_args(destination)))
    try:
        with _lock_temporary(temporary):
            yield temporary
            apply_umask(temporary)
            replaced = None
            if destination.is_dir():
                replaced = destination.rename(temporary.with_name(f"{temporary.name}.replaced"))
            temporary.rename(destination)
        if replaced:
            shutil.rmtree(replaced)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def atomic_write_file(
    destination: str | Path, overwrite: bool = True, error: type[UsageError] = UsageError
) -> Iterator[Path]:
    """Yields a temporary file that replaces `destination` when the block ends without an exception.

    Raises:
        error: If `destination` is a folder, must not be replaced, or cannot be written.
    """
    destination = Path(destination)
    _remove_old_temp_files(destination)
    if destination.is_dir():
        raise error(FileMessage.IS_A_FOLDER, path=destination)
    if destination.exists() and not overwrite:
        raise error(FileMessage.FILE_EXISTS, path=destination)
    with _reraise_as_usage_error(destination, error):
        handle, name = tempfile.mkstemp(**_temp_sibling_args(destination))
    os.close(handle)
    temporary = Path(name)
    try:
        with _lock_temporary(temporary):
            yield temporary
            _fsync(temporary)
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)


def read_text(path: Path, error: type[UsageError] = UsageError) -> str:
    """Reads text in UTF-8 (with or without a byte order mark), or in UTF-16 with a byte order mark.

    Raises:
        error: If the file has another encoding, which cannot be detected reliably (e.g. Latin-1).
    """
    content = path.read_bytes()
    has_utf16_mark = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if has_utf16_mark else "utf-8-sig")
    except UnicodeDecodeError as fault:
        line = content[: fault.start].count(b"\n") + 1
        text = content[max(0, fault.start - 20) : fault.start + 20].decode("latin-1").strip()
        raise error(FileMessage.NOT_UTF8, path=path, line=line, text=text) from None


def write_text(destination: str | Path, text: str) -> None:
    """Writes UTF-8 text; line ends are not changed."""
    with atomic_write_file(destination) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(destination: str | Path, values: Any) -> None:
    """Writes indented JSON; other types are converted to text."""
    write_text(destination, json.dumps(finite_or_null(values), indent=2, ensure_ascii=False, default=str) + "\n")


def finite_or_null(values: Any) -> Any:
    """Replaces NaN and infinite numbers by None, since JSON has no such numbers."""
    if isinstance(values, dict):
        return {key: finite_or_null(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite_or_null(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def write_csv(destination: str | Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Writes a header and rows as CSV."""
    with atomic_write_file(destination) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.writelines(map(csv_line, chain([header], rows)))


def csv_line(cells: Iterable[Any]) -> str:
    """Formats a row like the csv module; also quotes cells that a spreadsheet would execute as a formula.

    The cells are not changed, so that names are the same when they are read again.
    """
    return ",".join(_csv_cell("" if cell is None else str(cell)) for cell in cells) + "\r\n"


def _csv_cell(text: str) -> str:
    special = QUOTED.search(text) or (text[:1] in FORMULA_PREFIXES and not _is_number(text))
    return '"' + text.replace('"', '""') + '"' if text and special else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_image(destination: str | Path, image: Any, overwrite: bool = True) -> None:
    """Writes a PIL image in the format of the suffix."""
    from PIL import Image

    with atomic_write_file(destination, overwrite) as temporary:
        image.save(temporary, format=Image.registered_extensions()[Path(destination).suffix.lower()])


def apply_umask(folder: Path) -> None:
    """Applies the umask to a folder and its files (safetensors creates files with mode 0600)."""
    mask = _umask()
    folder.chmod(0o777 & ~mask)
    for path in folder.iterdir():
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o777 | 0o666 & ~mask)


def is_disk_full_error(error: BaseException | None) -> bool:
    """Whether an exception or its cause means that the disk is full.

    Libraries that write files themselves (safetensors, Arrow, torch) report a full disk in the text of other errors.
    """
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
    """Returns the arguments of `tempfile` for a temporary sibling; creates the parent folder."""
    destination.absolute().parent.mkdir(parents=True, exist_ok=True)
    return {"prefix": _temp_prefix(destination), "suffix": TEMP_SUFFIX, "dir": destination.absolute().parent}


def _temp_prefix(destination: Path) -> str:
    return f".{destination.name[:200]}."


def _remove_old_temp_files(destination: Path) -> None:
    """Removes temporary siblings that no writer has locked, a day after their last change."""
    pattern = f"{glob.escape(_temp_prefix(destination))}????????{TEMP_SUFFIX}"
    for path in destination.absolute().parent.glob(pattern):
        with suppress(OSError):  # its writer has just finished, or it belongs to another user
            if time.time() - path.lstat().st_mtime < MAX_TEMP_AGE:
                continue
            with _lock_temporary(path) as is_free:
                if is_free and path.is_dir():
                    shutil.rmtree(path)
                elif is_free:
                    path.unlink()


@contextmanager
def _lock_temporary(path: Path) -> Iterator[bool]:
    """Locks a temporary file or folder within the block; yields whether no other process has locked it.

    It yields True if locks do not exist: on Windows, and on some network disks.
    """
    if fcntl is None:
        yield True
        return
    file, is_free = os.open(path, os.O_RDONLY | os.O_NOFOLLOW), True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as fault:
        is_free = fault.errno not in (errno.EAGAIN, errno.EWOULDBLOCK)
    try:
        yield is_free
    finally:
        os.close(file)


@contextmanager
def _reraise_as_usage_error(destination: Path, error: type[UsageError]) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        raise error(FileMessage.CANNOT_WRITE, path=destination, reason=fault.strerror) from None


def _fsync(path: Path) -> None:
    """Flushes a file to the disk, so that it is complete even after a power failure."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
