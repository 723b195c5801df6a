"""Locks between processes and runs."""

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

try:
    fcntl: Any = import_module("fcntl")
except ImportError:  # Windows
    fcntl = None

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"  # in a folder that one process writes
MAX_OWNER_BYTES = 4096  # who it is, at most


_open_locks: set[int] = set()  # files by which this process holds something


def _close_inherited_locks() -> None:
    """In a process that was forked: else its workers would go on to hold what a killed process held."""
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
    """Holds the lock file `path` for a block; whoever comes second waits.

    Args:
        waiting_message: what is logged where somebody else holds it.
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
    """Holds a file or folder until `let_go`, or until the process ends; None: another holds it, or nobody can.

    On Windows nobody can: what is open there cannot be renamed.
    """
    if fcntl is None:
        return None
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another writer; or a file system without locks
        os.close(file)
        return None
    _open_locks.add(file)
    return file


def release_flock(file: int | None) -> None:
    """Ends what `taken` began."""
    if file is not None:
        _close_lock(file)


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Holds a folder for this process alone; the lock goes with the process, however that ends.

    The folder is made where it is missing, and is gone again if nothing was written into it.

    Raises:
        UsageError: another process holds it; the sentence says which.
    """
    if folder.is_file():
        raise UsageError(f"{folder} is a file: name a folder.")
    missing = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    held = _acquire(path)
    try:
        yield
    finally:
        _remove_lock_file(path, held)
        if missing and not any(folder.iterdir()):
            folder.rmdir()


def _acquire(path: Path) -> int:
    """The open, locked file."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock_descriptor(file)
        except OSError:
            owner = _describe_owner(file)
            os.close(file)
            raise UsageError(
                f"{path.parent} is being written by another run{owner}: wait until that is done, or choose another."
            ) from None
        if _is_same_file(path, file):
            break
        os.close(file)
    facts = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    os.ftruncate(file, 0)
    os.write(file, json.dumps(facts).encode())
    _open_locks.add(file)
    return file


def _lock_descriptor(file: int) -> None:
    """Raises OSError where another process has it."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    msvcrt: Any = import_module("msvcrt")
    os.lseek(file, MAX_OWNER_BYTES, os.SEEK_SET)  # there nobody reads what is locked: a byte behind the owner's facts
    msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    os.lseek(file, 0, os.SEEK_SET)


def _remove_lock_file(path: Path, file: int) -> None:
    if fcntl is None:  # nothing that is open is removed there
        _close_lock(file)
        path.unlink(missing_ok=True)
        return
    path.unlink(missing_ok=True)  # before the lock is let go: whoever waits looks whether the file is still there
    _close_lock(file)


def _describe_owner(file: int) -> str:
    try:
        os.lseek(file, 0, os.SEEK_SET)
        facts = json.loads(os.read(file, MAX_OWNER_BYTES))
        return f" (process {facts['process']} on {facts['host']}, since {facts['since']})"
    except (ValueError, KeyError, TypeError, OSError):
        return ""


def _is_same_file(path: Path, file: int) -> bool:
    """Whether a path leads to the file that is open: who held it before may have removed it."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False
