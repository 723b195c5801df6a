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
import secrets
import shutil
import stat
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
from .redaction import redact

try:
    fcntl: Any = import_module("fcntl")
except ImportError:  # Windows
    fcntl = None

TEMP_SUFFIX = ".partial"  # of a temporary sibling
# Spreadsheets execute a cell that starts with one of these characters, also of full width; a cell may start after a
# character that some of them read as the end of a cell.
FORMULA = re.compile(r"(?:^|[;,|\t\r\n\"])[\s'\u2018\u2019]*[=+\-@\uff1d\uff0b\uff0d\uff20]|^'*[\t\r\n]")
QUOTED = re.compile('[,"\r\n]')  # characters of a CSV cell that needs quotation marks
MAX_TEMP_AGE = 86_400.0  # seconds until an unlocked temporary sibling is removed


@contextmanager
def atomic_write_dir(destination: str | Path, overwrite: bool, error: type[UsageError] = UsageError) -> Iterator[Path]:
    """Yields a temporary folder whose files become those of `destination` when the block ends without an exception.

    A new folder is renamed from a sibling. An existing folder keeps its permissions and owner, and its parent is not
    written: it may be a link, the mount point of a disk, or the only writable folder of a container.

    Raises:
        error: If `destination` is a file, must not be replaced, or cannot be written.
    """
    destination = Path(os.path.realpath(destination))
    _remove_old_temp_files(destination)
    if destination.is_file():
        raise error(FileMessage.IS_A_FILE, path=destination)
    is_new = not destination.exists()
    if not is_new and _list_contents(destination) and not overwrite:
        raise error(FileMessage.FOLDER_NOT_EMPTY, path=destination)
    with _reraise_as_usage_error(destination, error):
        temporary = _temporary_path(destination, destination.parent if is_new else destination)
        temporary.mkdir(parents=True)
    try:
        with _lock_temporary(temporary):
            yield temporary
            apply_umask(temporary.rglob("*"))
            if is_new:
                temporary.rename(destination)
            else:
                _replace_contents(destination, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _list_contents(folder: Path) -> list[Path]:
    """Lists a folder without temporary folders, and without the folder of recovered files that a disk has."""
    prefix = _temp_prefix(folder)
    return [
        path
        for path in folder.iterdir()
        if path.name != "lost+found" and not (path.name.startswith(prefix) and path.name.endswith(TEMP_SUFFIX))
    ]


def _replace_contents(folder: Path, temporary: Path) -> None:
    """Replaces the contents of a folder by those of a temporary folder in it, the new files first."""
    new_names = {path.name for path in temporary.iterdir()}
    for name in sorted(new_names):
        if (folder / name).is_dir() and not (folder / name).is_symlink():
            shutil.rmtree(folder / name)
        (temporary / name).replace(folder / name)
    for path in _list_contents(folder):
        if path.name not in new_names:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@contextmanager
def atomic_write_file(
    destination: str | Path, overwrite: bool = True, error: type[UsageError] = UsageError
) -> Iterator[Path]:
    """Yields a temporary file that replaces `destination` when the block ends without an exception.

    A file that exists keeps its permissions. If `destination` is a link, its target is replaced. If only the file can
    be written (a mounted file, or a folder of another user), the temporary file is copied into it.

    Raises:
        error: If `destination` is a folder, must not be replaced, or cannot be written.
    """
    destination = Path(os.path.realpath(destination))
    _remove_old_temp_files(destination)
    if destination.is_dir():
        raise error(FileMessage.IS_A_FOLDER, path=destination)
    exists = destination.exists()
    if exists and not overwrite:
        raise error(FileMessage.FILE_EXISTS, path=destination)
    with _reraise_as_usage_error(destination, error):
        temporary = _create_temporary_file(destination)
    try:
        with _lock_temporary(temporary):
            yield temporary
            _fsync(temporary)
            if exists:
                set_mode(temporary, stat.S_IMODE(destination.stat().st_mode))
            else:
                apply_umask([temporary])  # safetensors and PIL may create another file
            with _reraise_as_usage_error(destination, error):
                _move_file(temporary, destination)
    finally:
        temporary.unlink(missing_ok=True)


def _create_temporary_file(destination: Path) -> Path:
    """Creates a temporary sibling; in the folder of temporary files if only the destination can be written."""
    temporary = _temporary_path(destination, destination.parent)
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
    except OSError:
        if not (destination.is_file() and os.access(destination, os.W_OK)):
            raise
        temporary = _temporary_path(destination, Path(tempfile.gettempdir()))
        temporary.touch(mode=0o600, exist_ok=False)
    return temporary


def _move_file(temporary: Path, destination: Path) -> None:
    """Renames a file; copies its content if the name of the destination cannot be replaced, e.g. of a mounted file."""
    try:
        temporary.replace(destination)
    except OSError:
        if not (destination.is_file() and os.access(destination, os.W_OK)):
            raise
        shutil.copyfile(temporary, destination)


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
    """Writes UTF-8 text without passwords and tokens; line ends are not changed."""
    with atomic_write_file(destination) as temporary:
        temporary.write_text(redact(text), encoding="utf-8", newline="")


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


def write_csv(
    destination: str | Path, header: Iterable[str], rows: Iterable[Iterable[Any]], for_people: bool = False
) -> None:
    """Writes a header and rows as CSV.

    Args:
        for_people: the file is opened in spreadsheets: `escape_formula` is applied to texts.
    """
    if for_people:
        rows = ([escape_formula(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    with atomic_write_file(destination) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.writelines(map(csv_line, chain([header], rows)))


def escape_formula(text: str) -> str:
    """Adds an apostrophe to a text that a spreadsheet would execute; numbers are not changed."""
    return f"'{text}" if FORMULA.search(text) and not _is_number(text) else text


def restore_formula(text: str) -> str:
    """Returns the text from which `escape_formula` made this one."""
    return text[1:] if text.startswith("'") and escape_formula(text[1:]) == text else text


def csv_line(cells: Iterable[Any]) -> str:
    """Formats a row like the csv module, with texts that a spreadsheet may execute in quotation marks.

    The cells are not changed, so that names are the same when they are read again.
    """
    return ",".join(_csv_cell("" if cell is None else str(cell)) for cell in cells) + "\r\n"


def _csv_cell(text: str) -> str:
    special = QUOTED.search(text) or (FORMULA.match(text) and not _is_number(text))
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


def apply_umask(paths: Iterable[Path]) -> None:
    """Gives files of this package the permissions of the umask (safetensors creates files with mode 0600).

    Call it for new files only. Folders and links are skipped.
    """
    mask = _umask()
    for path in paths:
        if path.is_file() and not path.is_symlink():
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode != (new_mode := mode | 0o666 & ~mask):
                set_mode(path, new_mode)


def set_mode(path: Path, mode: int) -> None:
    """Sets permissions, if the disk has them (exFAT and Windows shares do not)."""
    with suppress(OSError):
        path.chmod(mode)


def find_write_error(folder: Path) -> str | None:
    """Returns the reason why no file can be created in a folder, which may be missing; None if one can."""
    folder = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not os.path.isdir(folder):
        return f"{folder} is not a folder"
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)


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


def _temporary_path(destination: Path, folder: Path) -> Path:
    return folder / f"{_temp_prefix(destination)}{secrets.token_hex(4)}{TEMP_SUFFIX}"


def _temp_prefix(destination: Path) -> str:
    return f".{destination.name[:200]}."


def _remove_old_temp_files(destination: Path) -> None:
    """Removes temporary siblings that no writer has locked, a day after their last change."""
    pattern = f"{glob.escape(_temp_prefix(destination))}????????{TEMP_SUFFIX}"
    for path in [*destination.parent.glob(pattern), *destination.glob(pattern)]:
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
