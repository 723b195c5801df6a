"""Cached values, and keys that change with files."""

import os

from hf_mae.files.caches import cached, file_keys, files_fingerprint


def test_a_value_is_computed_once(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_mae.files.caches.cache_folder", lambda: tmp_path)
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
