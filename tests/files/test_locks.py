"""A folder has one writer at a time."""

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
    assert [path.name for path in folder.iterdir()] == ["result"]


def test_a_new_folder_without_output_is_removed(tmp_path):
    with pytest.raises(KeyError), exclusive_lock(tmp_path / "a" / "run"):
        raise KeyError
    assert not (tmp_path / "a" / "run").exists()
    (tmp_path / "file").write_text("x")
    with raises(FileMessage.IS_A_FILE, path=tmp_path / "file"), exclusive_lock(tmp_path / "file"):
        pass


def test_a_lock_is_released_after_an_exception(tmp_path):
    for _ in range(2):
        with pytest.raises(RuntimeError), wait_for_lock(tmp_path / "below" / "lock"):
            raise RuntimeError
