"""Locks between processes (filelock's). They end with the process in any case.

On a disk without `flock` (some Lustre, NFS and FUSE mounts), a file that exists only while it is locked is the lock. If
its process was killed on another host, the file remains and must be deleted.
"""

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from ..errors import UsageError
from .atomic import write_json
from .messages import FileMessage

try:
    fcntl: Any = import_module("fcntl")
except ImportError:  # Windows
    fcntl = None

logger = logging.getLogger(__name__)

LOCK_FILE, OWNER_FILE = ".lock", ".lock.json"  # in a locked folder
SOFT_SUFFIX = ".soft"  # of the lock file on a disk without `flock`


def _acquire(path: Path, timeout: float) -> BaseFileLock:
    """Acquires a lock; raises Timeout if another process still has it after the timeout in seconds (-1: waits)."""
    if _has_flock(path, timeout):
        lock: BaseFileLock = FileLock(path, timeout, fallback_to_soft=False)
    else:
        lock = SoftFileLock(path.with_name(f"{path.name}{SOFT_SUFFIX}"), timeout)
    lock.acquire()
    return lock


def _has_flock(path: Path, timeout: float) -> bool:
    """Whether the disk of a lock file has locks. Only EAGAIN and EWOULDBLOCK mean that another process has the lock.

    The file of another member of the group, which this process may only read, is removed if its process has ended.

    Raises:
        OSError: If the file cannot be created or opened.
    """
    if fcntl is None:  # Windows has other locks
        return True
    is_readable_only = False
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError:
        file, is_readable_only = os.open(path, os.O_RDONLY | os.O_CLOEXEC), True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if is_readable_only and timeout < 0 else fcntl.LOCK_NB))
        if is_readable_only:
            path.unlink()
    except BlockingIOError:
        if is_readable_only:
            raise Timeout(str(path)) from None
    except OSError as error:
        if is_readable_only and error.filename:  # raised by `unlink`
            raise
        return False
    finally:
        os.close(file)
    return True


def _read_owner(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / OWNER_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # it is just being written
        return dict.fromkeys(("process", "host", "since"), "?")


@contextmanager
def wait_for_lock(path: Path, waiting_message: str = "") -> Iterator[None]:
    """Locks the file `path` within the block; waits while another process has the lock.

    Args:
        waiting_message: text to log before waiting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = _acquire(path, timeout=0)
    except Timeout:
        if waiting_message:
            logger.info(waiting_message)
        lock = _acquire(path, timeout=-1)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Locks a folder for this process within the block.

    A missing folder is created, and removed again if nothing was written to it.

    Raises:
        UsageError: If another process has locked the folder.
    """
    folder = Path(os.path.realpath(folder))  # a link to a folder that is missing
    if folder.is_file():
        raise UsageError(FileMessage.IS_A_FILE, path=folder)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = _acquire(folder / LOCK_FILE, timeout=0)
    except Timeout as error:
        owner = _read_owner(folder)
        if error.lock_file.endswith(SOFT_SUFFIX):
            raise UsageError(FileMessage.FOLDER_LOCKED_BY_FILE, path=folder, lock=error.lock_file, **owner) from None
        raise UsageError(FileMessage.FOLDER_LOCKED, path=folder, **owner) from None
    try:
        owner = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        with suppress(OSError):  # the file of another user: the lock itself is valid
            write_json(folder / OWNER_FILE, owner)
        yield
    finally:
        for name in (OWNER_FILE, LOCK_FILE):  # before the release: filelock rejects a lock on a removed file
            with suppress(OSError):
                (folder / name).unlink(missing_ok=True)
        lock.release()
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
