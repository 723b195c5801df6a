"""Files and folders are written completely or not at all, with the permissions of the umask."""

import csv
import errno
import io
import json
import os
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.messages import raises

from hf_mae.conversion import ConversionError
from hf_mae.errors import UsageError
from hf_mae.files import atomic
from hf_mae.files.atomic import (
    atomic_write_dir,
    atomic_write_file,
    csv_line,
    is_disk_full_error,
    write_csv,
    write_json,
    write_text,
)
from hf_mae.files.messages import FileMessage


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o022, 0o027, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_written_files_have_the_permissions_of_the_umask(umask, tmp_path):
    write_json(tmp_path / "a.json", {"é": 1})
    write_csv(tmp_path / "a.csv", ["a", "b"], [[1, 'x"y']])
    with atomic_write_dir(tmp_path / "folder", overwrite=False) as folder:
        (folder / "weights").touch(mode=0o600)
    for path in (tmp_path / "a.json", tmp_path / "a.csv", tmp_path / "folder" / "weights"):
        assert mode(path) == 0o666 & ~umask
    assert mode(tmp_path / "folder") == 0o777 & ~umask
    assert (tmp_path / "a.csv").read_bytes() == b'a,b\r\n1,"x""y"\r\n'


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_write_keeps_the_existing_content(tmp_path, error):
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


WRITE_WITHOUT_END = """
import os, signal, sys
from pathlib import Path
from hf_mae.files.atomic import atomic_write_dir, atomic_write_file
folder = Path(sys.argv[1])
with atomic_write_file(folder / "file") as file, atomic_write_dir(folder / "folder", overwrite=True) as inside:
    file.write_text("half")
    (inside / "half").write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_old_temporaries_are_removed_unless_a_writer_has_locked_them(tmp_path, monkeypatch):
    def write_both():
        write_text(tmp_path / "file", "new")
        with atomic_write_dir(tmp_path / "folder", overwrite=True) as folder:
            write_text(folder / "inside", "new")
        return sorted(path.name for path in tmp_path.iterdir())

    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", WRITE_WITHOUT_END, tmp_path], **pipes) as writer:
        assert writer.stdout.readline() == "writing\n"
        temporary = sorted(path.name for path in tmp_path.iterdir())
        assert len(temporary) == 2
        with monkeypatch.context() as a_day_later:
            a_day_later.setattr(atomic, "MAX_TEMP_AGE", -1.0)
            assert write_both() == [*temporary, "file", "folder"]  # the writer is alive
        writer.kill()
    assert write_both() == [*temporary, "file", "folder"]  # not a day old
    yesterday = time.time() - 86_500
    for name in temporary:
        os.utime(tmp_path / name, (yesterday, yesterday))
    assert write_both() == ["file", "folder"]
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["inside"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_files_are_written_on_a_disk_without_locks(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    old = tmp_path / ".file.abcdefgh.partial"
    old.touch()
    os.utime(old, (0, 0))
    write_text(tmp_path / "file", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
    ],
)
def test_a_full_disk_is_detected_in_the_errors_of_every_library(error):
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


def test_write_errors_have_the_class_of_the_caller(tmp_path):
    write_text(tmp_path / "file", "x")
    for error in (UsageError, ConversionError):
        with raises(FileMessage.FILE_EXISTS, error, path=tmp_path / "file"):
            atomic_write_file(tmp_path / "file", overwrite=False, error=error).__enter__()
        with raises(FileMessage.IS_A_FILE, error, path=tmp_path / "file"):
            atomic_write_dir(tmp_path / "file", overwrite=True, error=error).__enter__()
        with raises(FileMessage.IS_A_FOLDER, error, path=tmp_path):
            atomic_write_file(tmp_path, error=error).__enter__()
        with raises(FileMessage.CANNOT_WRITE, error):
            atomic_write_file(tmp_path / "file" / "below", error=error).__enter__()


def test_a_file_name_of_the_maximum_length_is_written(tmp_path):
    write_text(tmp_path / ("n" * 255), "x")
    assert (tmp_path / ("n" * 255)).read_text() == "x"


@given(st.lists(st.one_of(st.text(), st.floats(allow_nan=False), st.none()), min_size=2, max_size=5))
def test_csv_lines_equal_those_of_the_csv_module_except_for_formulas(cells):
    plain = io.StringIO()
    csv.writer(plain).writerow(cells)
    line = csv_line(cells)
    assert next(csv.reader(io.StringIO(line, newline=""))) == ["" if cell is None else str(cell) for cell in cells]
    if not any(isinstance(cell, str) and atomic.FORMULA.match(cell) for cell in cells):
        assert line == plain.getvalue()


def test_formulas_are_quoted():
    cells = ["=1+1", "+cmd|'/c calc'!A1", "@SUM(1)", "-2+3", "-0.5", "-1e-9", "plain", 3, None]
    line = """"=1+1","+cmd|'/c calc'!A1","@SUM(1)","-2+3",-0.5,-1e-9,plain,3,\r\n"""
    assert csv_line(cells) == line


@pytest.mark.parametrize(
    "text",
    [
        *("=1+1", "+cmd|'/c calc'!A1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\n=1", " =1", "'=1", "''@a", "\u2019=1"),
        *("\uff1d1+1", "\uff0b1", "\uff0dx", "\uff20SUM(1)", "a;=1+1", 'a",=1', "a|@x", "a\n=1", "a; -x", "\ttext"),
    ],
)
def test_texts_that_a_spreadsheet_executes_get_an_apostrophe(text, tmp_path):
    assert atomic.escape_formula(text) == f"'{text}" and atomic.restore_formula(f"'{text}") == text
    atomic.write_csv(tmp_path / "a.csv", ["name", "value"], [[text, -0.5]], for_people=True)
    with open(tmp_path / "a.csv", newline="") as file:
        assert list(csv.reader(file)) == [["name", "value"], [f"'{text}", "-0.5"]]


@pytest.mark.parametrize("text", ["", "-0.5", "-1e-9", "+3", "a=b", "a-b", "polyp", "'quoted'", "a + b", "x@y", "a, b"])
def test_other_texts_and_numbers_are_unchanged(text):
    assert atomic.escape_formula(text) == text == atomic.restore_formula(text)


@given(st.text())
def test_a_text_is_restored_after_a_spreadsheet_was_protected(text):
    assert atomic.restore_formula(atomic.escape_formula(text)) == text


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), np.float64("nan")])
def test_numbers_that_json_does_not_have_are_null(number, tmp_path):
    atomic.write_json(tmp_path / "a.json", {"loss": number, "all": [1.5, (number,)], "by": {"x": number, "n": 2}})

    def reject(constant):
        raise AssertionError(constant)

    text = (tmp_path / "a.json").read_text()
    assert json.loads(text, parse_constant=reject) == {"loss": None, "all": [1.5, [None]], "by": {"x": None, "n": 2}}


def _forbid_chmod(monkeypatch):
    def chmod(*_, **__):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr("os.chmod", chmod)
    monkeypatch.setattr("pathlib.Path.chmod", chmod)


@pytest.mark.parametrize("has_modes", [True, False])
@pytest.mark.parametrize("folder_mode", [0o700, 0o750, 0o2775])
def test_existing_files_and_folders_keep_their_permissions(tmp_path, monkeypatch, folder_mode, has_modes):
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    folder.chmod(folder_mode)
    file.touch(mode=0o600)
    (folder / "old").mkdir()
    if not has_modes:
        _forbid_chmod(monkeypatch)
    with atomic_write_dir(folder, overwrite=True) as temporary:
        (temporary / "below").mkdir()
        (temporary / "below" / "weights").touch(mode=0o600)
    write_text(file, "x")
    assert mode(folder) == folder_mode and [path.name for path in folder.rglob("*")] == ["below", "weights"]
    if has_modes:
        assert mode(file) == 0o600 and mode(folder / "below" / "weights") == 0o644


def test_links_stay_links_and_their_targets_are_written(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "folder").mkdir()
    (tmp_path / "disk" / "folder" / "lost+found").mkdir()  # the root of a mounted disk
    (tmp_path / "disk" / "file").write_text("before")
    for name in ("file", "folder"):
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    (tmp_path / "new").symlink_to(tmp_path / "disk" / "new")
    write_text(tmp_path / "file", "after")
    for name, files in (("folder", ["lost+found", "x"]), ("new", ["x"])):
        with atomic_write_dir(tmp_path / name, overwrite=False) as temporary:
            write_text(temporary / "x", "x")
        assert sorted(path.name for path in (tmp_path / "disk" / name).iterdir()) == files
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_symlink()) == ["file", "folder", "new"]
    assert (tmp_path / "disk" / "file").read_text() == "after"
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["file", "folder", "new"]


@pytest.mark.parametrize("calls", [("open", "replace"), ("replace",)])
def test_a_file_is_written_although_its_folder_cannot_be(tmp_path, monkeypatch, calls):
    """A mounted file of a container (EBUSY), or a folder of another user (EACCES)."""
    file, temporary_files = tmp_path / "given" / "file", tmp_path / "temporary"
    for folder in (file.parent, temporary_files):
        folder.mkdir()
    file.write_text("before")
    monkeypatch.setattr("tempfile.tempdir", str(temporary_files))

    def failing(call):
        original = getattr(os, call)

        def fail(path, other, *args, **kwargs):  # `other`: the flags, or the new name
            created = path if call == "open" and other & os.O_CREAT else other if call == "replace" else None
            if created is not None and os.path.dirname(created) == str(file.parent):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            return original(path, other, *args, **kwargs)

        return fail

    for call in calls:
        monkeypatch.setattr(os, call, failing(call))
    inode = file.stat().st_ino
    write_text(file, "after")
    assert file.read_text() == "after" and file.stat().st_ino == inode
    assert [*file.parent.iterdir(), *temporary_files.iterdir()] == [file]
    with raises(FileMessage.CANNOT_WRITE):
        write_text(file.parent / "new", "x")
