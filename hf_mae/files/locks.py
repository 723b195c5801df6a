"""File and folder locks between processes."""

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import UsageError
from .messages import FileMessage

try:
    fcntl: Any = import_module("fcntl")
except ImportError:  # Windows
    fcntl = None

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"  # in a locked folder
MAX_OWNER_BYTES = 4096  # maximum size of the owner record in a lock file


_open_locks: set[int] = set()  # descriptors of the lock files of this process


def _close_inherited_locks() -> None:
    """Closes the locks in a forked process, so that they do not outlive a killed parent process."""
    for file in _open_locks:
        os.close(file)
    _open_locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited_locks)


def _close_lock(file: int) -> None:
    if file in _open_locks:
        _open_locks.discard(file)
        os.close(file)


@contextmanager
def wait_for_lock(path: Path, waiting_message: str = "") -> Iterator[None]:
    """Locks the file `path` within the block; waits while another process has the lock.

    Args:
        waiting_message: text to log before waiting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if waiting_message:
            logger.info(waiting_message)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def try_flock(path: Path) -> int | None:
    """Locks a file or folder until `release_flock` or the end of the process.

    Returns:
        A descriptor, or None if another process has the lock or locking is not supported. On Windows it is not,
        because open files cannot be renamed there.
    """
    if fcntl is None:
        return None
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # locked by another process, or a file system without locks
        os.close(file)
        return None
    _open_locks.add(file)
    return file


def release_flock(file: int | None) -> None:
    """Releases a lock of `try_flock`; None is allowed."""
    if file is not None:
        _close_lock(file)


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Locks a folder for this process within the block; the lock ends with the process in any case.

    A missing folder is created, and removed again if nothing was written to it.

    Raises:
        UsageError: If another process has locked the folder.
    """
    if folder.is_file():
        raise UsageError(FileMessage.IS_A_FILE, path=folder)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    file = _acquire(path)
    try:
        yield
    finally:
        _remove_lock_file(path, file)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


def _acquire(path: Path) -> int:
    """Returns the descriptor of the locked file."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock_descriptor(file)
        except OSError:
            owner = _read_owner(file)
            os.close(file)
            if owner is None:
                raise UsageError(FileMessage.FOLDER_LOCKED_BY_UNKNOWN, path=path.parent) from None
            raise UsageError(FileMessage.FOLDER_LOCKED, path=path.parent, **owner) from None
        if _is_same_file(path, file):
            break
        os.close(file)
    owner = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    os.ftruncate(file, 0)
    os.write(file, json.dumps(owner).encode())
    _open_locks.add(file)
    return file


def _lock_descriptor(file: int) -> None:
    """Locks an open file; raises OSError if another process has the lock."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    msvcrt: Any = import_module("msvcrt")
    os.lseek(file, MAX_OWNER_BYTES, os.SEEK_SET)  # Windows forbids reading locked bytes: lock one after the record
    msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    os.lseek(file, 0, os.SEEK_SET)


def _remove_lock_file(path: Path, file: int) -> None:
    if fcntl is None:  # Windows cannot remove open files
        _close_lock(file)
        path.unlink(missing_ok=True)
        return
    path.unlink(missing_ok=True)  # before the release: `_acquire` checks that the locked file still exists
    _close_lock(file)


def _read_owner(file: int) -> dict[str, Any] | None:
    """Reads the owner record of a lock file; None if it is missing or incomplete."""
    try:
        os.lseek(file, 0, os.SEEK_SET)
        owner = json.loads(os.read(file, MAX_OWNER_BYTES))
        return {name: owner[name] for name in ("process", "host", "since")}
    except (ValueError, KeyError, TypeError, OSError):
        return None


def _is_same_file(path: Path, file: int) -> bool:
    """Whether a path refers to an open file; the previous owner of the lock may have removed it."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False
