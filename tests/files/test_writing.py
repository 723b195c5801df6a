"""A file is written whole or not at all, with the permissions that the umask gives."""

import errno
import os
import stat
import subprocess
import sys

import pytest

from hf_mae.conversion import ConversionError
from hf_mae.errors import UsageError
from hf_mae.files import atomic
from hf_mae.files.atomic import (
    apply_umask,
    atomic_write_dir,
    atomic_write_file,
    is_disk_full_error,
    write_csv,
    write_json,
    write_text,
)
from hf_mae.files.caches import cached, file_keys, files_fingerprint
from hf_mae.files.locks import wait_for_lock


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o022, 0o027, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_what_is_written_has_the_permissions_of_the_umask(umask, tmp_path):
    write_json(tmp_path / "a.json", {"é": 1})
    write_csv(tmp_path / "a.csv", ["a", "b"], [[1, 'x"y']])
    with atomic_write_dir(tmp_path / "folder", overwrite=False) as folder:
        (folder / "weights").touch(mode=0o600)
        apply_umask(folder)
    for path in (tmp_path / "a.json", tmp_path / "a.csv", tmp_path / "folder" / "weights"):
        assert mode(path) == 0o666 & ~umask
    assert mode(tmp_path / "folder") == 0o777 & ~umask
    assert (tmp_path / "a.csv").read_bytes() == b'a,b\r\n1,"x""y"\r\n'


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_fails_leaves_what_was_there(tmp_path, error):
    write_text(tmp_path / "file", "before")
    (tmp_path / "folder").mkdir()
    write_text(tmp_path / "folder" / "inside", "before")
    with pytest.raises(error), atomic_write_file(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise error
    with pytest.raises(error), atomic_write_dir(tmp_path / "folder", overwrite=True) as temporary:
        (temporary / "inside").write_text("half")
        raise error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "inside").read_text() == "before"


KILLED = """
import os, signal, sys
from pathlib import Path
from hf_mae.files.atomic import whole_file, whole_folder
folder = Path(sys.argv[1])
with whole_file(folder / "file") as file, whole_folder(folder / "folder", overwrite=True) as inside:
    file.write_text("half")
    (inside / "half").write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_writer_leaves_is_cleared_by_the_next_and_a_living_ones_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "MIN_STALE_AGE", -1.0)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], **pipes) as other:
        assert other.stdout.readline() == "writing\n"
        theirs = sorted(path.name for path in tmp_path.iterdir())
        write_text(tmp_path / "file", "ours")
        assert sorted(path.name for path in tmp_path.iterdir()) == [*theirs, "file"]
        other.kill()
    write_text(tmp_path / "file", "ours")
    with atomic_write_dir(tmp_path / "folder", overwrite=False) as folder:
        write_text(folder / "inside", "ours")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["inside"]


def test_a_folder_that_was_taken_away_for_another_comes_back(tmp_path, monkeypatch):
    """A kill between the two renames."""
    monkeypatch.setattr(atomic, "MIN_STALE_AGE", -1.0)
    replaced = tmp_path / ".folder.abcdefgh.partial.replaced"
    replaced.mkdir()
    write_text(replaced / "inside", "before")
    with pytest.raises(UsageError, match="folder exists and is not empty"):
        atomic_write_dir(tmp_path / "folder", overwrite=False).__enter__()
    assert (tmp_path / "folder" / "inside").read_text() == "before" and not replaced.exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
    ],
)
def test_a_full_disk_is_known_in_the_words_of_every_library(error):
    assert is_disk_full_error(error)
    try:
        try:
            raise error
        except Exception:
            raise ValueError("something else") from None
    except ValueError as later:
        assert is_disk_full_error(later)
    assert not is_disk_full_error(
        RuntimeError("PytorchStreamReader failed reading zip archive")
    ) and not is_disk_full_error(None)


def test_what_may_not_be_replaced_is_said_in_the_callers_kind_of_error(tmp_path):
    write_text(tmp_path / "file", "x")
    for error in (UsageError, ConversionError):
        with pytest.raises(error, match="exists: choose another name, or pass --overwrite"):
            atomic_write_file(tmp_path / "file", overwrite=False, error=error).__enter__()
        with pytest.raises(error, match="is a file: name a folder"):
            atomic_write_dir(tmp_path / "file", overwrite=True, error=error).__enter__()
        with pytest.raises(error, match="is a folder: name a file"):
            atomic_write_file(tmp_path, error=error).__enter__()
        with pytest.raises(error, match="cannot be written"):
            atomic_write_file(tmp_path / "file" / "below", error=error).__enter__()


def test_a_name_as_long_as_names_may_be(tmp_path):
    write_text(tmp_path / ("n" * 255), "x")
    assert (tmp_path / ("n" * 255)).read_text() == "x"


def test_a_value_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_mae.files.caches.cache_folder", lambda: tmp_path)
    made = []

    def value():
        return cached(
            "kind/key.txt",
            make=lambda: made.append(1) or "value",
            read=lambda path: path.read_text(),
            write=lambda path, text: path.write_text(text),
        )

    assert value() == value() == "value" and made == [1]
    assert [path.name for path in (tmp_path / "kind").iterdir()] == ["key.txt"]


def test_a_file_is_told_by_where_it_lies_and_by_its_state(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "image.png").write_bytes(name.encode())
        os.utime(tmp_path / name / "image.png", ns=(0, 0))
    keys = []
    for name in ("one", "two"):  # the same relative path, size and time
        monkeypatch.chdir(tmp_path / name)
        keys.append((file_keys(["image.png"])[0], files_fingerprint(["image.png"])))
    assert keys[0][0] != keys[1][0] and keys[0][1] != keys[1][1]
    assert keys[1][0] == file_keys([str(tmp_path / "two" / "image.png")])[0]
    os.utime("image.png", ns=(1, 1))
    assert file_keys(["image.png"])[0] != keys[1][0]


def test_a_lock_is_let_go(tmp_path):
    for _ in range(2):
        with pytest.raises(RuntimeError), wait_for_lock(tmp_path / "below" / "lock"):
            raise RuntimeError
