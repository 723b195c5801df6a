"""A folder has one writer at a time."""

import errno
import os
import signal
import subprocess
import sys

import pytest
from support.messages import raises

from hf_mae.files.locks import LOCK_FILE, exclusive_lock, wait_for_lock
from hf_mae.files.messages import FileMessage

LOCK_FOLDER = """
import sys, time
from pathlib import Path
from hf_mae.files.locks import exclusive_lock
with exclusive_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(120)
"""

NO_FLOCK = """
import fcntl
def flock(*_):
    raise OSError(38, "Function not implemented")
fcntl.flock = flock
"""
LOCK_AND_FORK = """
import os, sys, time
from pathlib import Path
from hf_mae.files.locks import exclusive_lock
with exclusive_lock(Path(sys.argv[1])):
    if os.fork() == 0:
        print(os.getpid(), flush=True)  # when it has given up the lock
    time.sleep(120)
"""


def test_a_second_writer_is_rejected_and_the_first_is_named(tmp_path):
    folder = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", LOCK_FOLDER, folder], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "locked\n"
        with raises(FileMessage.FOLDER_LOCKED, path=folder, process=first.pid), exclusive_lock(folder):
            pytest.fail("locked twice")
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert (folder / LOCK_FILE).is_file()  # the file remains, but the lock ended with the process
    with exclusive_lock(folder):
        (folder / "result").write_text("x")
        with raises(FileMessage.FOLDER_LOCKED, process=os.getpid()), exclusive_lock(folder):
            pytest.fail("locked twice")
    assert [path.name for path in folder.iterdir()] == ["result"]


def test_a_new_folder_without_output_is_removed(tmp_path):
    with pytest.raises(KeyError), exclusive_lock(tmp_path / "a" / "run"):
        raise KeyError
    assert not (tmp_path / "a" / "run").exists()
    (tmp_path / "file").write_text("x")
    with raises(FileMessage.IS_A_FILE, path=tmp_path / "file"), exclusive_lock(tmp_path / "file"):
        pass


def test_a_link_to_a_missing_folder_leads_to_a_new_folder(tmp_path):
    link, target = tmp_path / "runs", tmp_path / "scratch" / "runs"
    link.symlink_to(target)
    with exclusive_lock(link):
        (link / "file").touch()
    assert link.is_symlink() and [path.name for path in target.iterdir()] == ["file"]


def test_a_lock_is_released_after_an_exception(tmp_path):
    for _ in range(2):
        with pytest.raises(RuntimeError), wait_for_lock(tmp_path / "below" / "lock"):
            raise RuntimeError


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL])
def test_a_disk_without_flock_has_one_writer_too(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with wait_for_lock(tmp_path / "lock"), exclusive_lock(tmp_path / "run"):
        with raises(FileMessage.FOLDER_LOCKED_BY_FILE, process=os.getpid()), exclusive_lock(tmp_path / "run"):
            pytest.fail("locked twice")
        (tmp_path / "run" / "result").write_text("x")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["result"]
    killed = subprocess.Popen([sys.executable, "-c", NO_FLOCK + LOCK_FOLDER, tmp_path / "run"], stdout=subprocess.PIPE)
    with killed:
        assert killed.stdout.readline() == b"locked\n"
        with raises(FileMessage.FOLDER_LOCKED_BY_FILE, process=killed.pid), exclusive_lock(tmp_path / "run"):
            pytest.fail("locked twice")
        killed.kill()
    with exclusive_lock(tmp_path / "run"):  # the process of the lock file does not exist any more
        pass
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["result"]


def test_a_folder_that_cannot_be_written_is_no_missing_lock(tmp_path, monkeypatch):
    (tmp_path / ".lock").mkdir()  # as good as a folder without permissions, also for root
    (tmp_path / ".lock.soft").mkdir()
    with pytest.raises(OSError), exclusive_lock(tmp_path):
        pytest.fail("locked")


def test_the_lock_ends_with_the_process_although_its_children_live_on(tmp_path):
    """DataLoader workers are forked: they must not keep the lock of a killed run."""
    with subprocess.Popen([sys.executable, "-c", LOCK_AND_FORK, tmp_path], stdout=subprocess.PIPE, text=True) as run:
        child = int(run.stdout.readline())
        run.kill()
        run.wait()
        try:
            with exclusive_lock(tmp_path):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_only_a_held_lock_means_another_writer(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with exclusive_lock(tmp_path / "run"):
        pass


def test_the_lock_file_of_another_member_of_the_group_is_respected_and_removed_if_it_is_stale(tmp_path, monkeypatch):
    folder, original = tmp_path / "run", os.open

    def open_as_member(path, flags, *args, **kwargs):
        if str(path) == str(folder / LOCK_FILE) and flags & os.O_RDWR and os.path.exists(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return original(path, flags, *args, **kwargs)

    with subprocess.Popen([sys.executable, "-c", LOCK_FOLDER, folder], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "locked\n"
        monkeypatch.setattr(os, "open", open_as_member)
        with raises(FileMessage.FOLDER_LOCKED, process=first.pid), exclusive_lock(folder):
            pytest.fail("locked twice")
        first.kill()
    with exclusive_lock(folder):
        (folder / "result").touch()
    assert [path.name for path in folder.iterdir()] == ["result"]
