"""Cached values, and keys that change with files."""

import os

import pytest
from support.messages import logged

from hf_mae.files import caches
from hf_mae.files.atomic import write_text
from hf_mae.files.caches import cache_path, cached, file_keys, files_fingerprint
from hf_mae.files.messages import FileMessage


def test_a_value_is_computed_once(tmp_path, monkeypatch):
    monkeypatch.setattr(caches, "cache_folder", lambda: tmp_path)
    calls = []

    def value():
        return cached(
            "kind/key.txt",
            make=lambda: calls.append(1) or "value",
            read=lambda path: path.read_text(),
            write=lambda path, text: path.write_text(text),
        )

    assert value() == value() == "value" and calls == [1]
    assert [path.name for path in (tmp_path / "kind").iterdir()] == ["key.txt"]


def test_a_key_depends_on_the_absolute_path_and_the_state_of_a_file(tmp_path, monkeypatch):
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


def test_a_cache_that_cannot_be_written_is_read_and_new_entries_are_temporary(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    monkeypatch.setattr(caches, "_temporary_caches", {})
    assert cache_path("kind/old.txt") == tmp_path / "hf_mae" / "kind" / "old.txt"
    write_text(cache_path("kind/old.txt"), "old")
    monkeypatch.setattr(caches, "find_write_error", lambda folder: "Read-only file system")
    calls = []
    for name in ("kind/old.txt", "kind/new.txt", "kind/new.txt"):
        cached(name, lambda: calls.append(1) or "new", lambda path: path.read_text(), write_text)
    assert calls == [1] and [path.name for path in (tmp_path / "hf_mae" / "kind").iterdir()] == ["old.txt"]
    assert cache_path("kind/old.txt", for_writing=True) != cache_path("kind/old.txt")
    assert [record.code for record in caplog.records] == [FileMessage.CACHE_NOT_WRITABLE]


@pytest.mark.parametrize("home", ["file", "file/below", "link"])
def test_a_home_that_is_no_folder_is_skipped_with_one_warning(home, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / home))
    monkeypatch.setattr(caches, "_temporary_caches", {})
    assert cached("kind/new.txt", lambda: "new", lambda path: path.read_text(), write_text) == "new"
    assert cached("kind/new.txt", lambda: "other", lambda path: path.read_text(), write_text) == "new"
    assert [record.code for record in caplog.records] == [FileMessage.CACHE_NOT_WRITABLE]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can change an owner")
@pytest.mark.parametrize(
    "owner, mode, is_trusted",
    [(0, 0o755, True), (0, 0o775, True), (1234, 0o755, False), (0, 0o777, False), (0, 0o1777, False)],
)
def test_a_cache_that_others_may_have_written_is_not_read(tmp_path, monkeypatch, caplog, owner, mode, is_trusted):
    folder = tmp_path / "hf_mae"
    folder.mkdir()
    (folder / "value").write_text("planted")
    os.chown(folder, owner, 0)
    folder.chmod(mode)
    monkeypatch.setattr(caches, "cache_folder", lambda: folder)
    monkeypatch.setattr(caches, "_temporary_caches", {})
    path = caches.cache_path("value")
    assert (path == folder / "value") == is_trusted
    assert is_trusted or (not path.exists() and path.parent.stat().st_mode & 0o777 == 0o700)
    assert logged(caplog.records, FileMessage.CACHE_NOT_TRUSTED) != is_trusted
