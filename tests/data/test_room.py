"""The cache knows the disk: what it takes is estimated, bounded, listed, checked and removed."""

import os
import re
import time

import numpy as np
import pytest
from support.cli_process import run_cli

from hf_mae.data import cache_eviction
from hf_mae.data.folders import load_image_folder
from hf_mae.data.pixel_cache import PixelCache
from hf_mae.data.torch_datasets import PixelReader, make_pixel_reader
from hf_mae.data.transforms import training_transform
from hf_mae.errors import CommandLineError
from hf_mae.files.caches import cache_folder
from hf_mae.settings.data import DataArguments, parse_byte_size

SIDE = 100


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_MAE_CACHE_LIMIT", raising=False)


def fill(preparation: str, images: int, hours_ago: float = 0.0) -> PixelCache:
    """A store of images of 30,000 bytes, used so long ago."""
    store = PixelCache(preparation)
    pixels = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    store.add([f"{preparation} {index}" for index in range(images)], lambda index: (pixels, "digest"), 2, "/somewhere")
    for file in store.folder.glob("*.arrow"):
        os.utime(file, (time.time() - 3600 * hours_ago,) * 2)
    return store


def test_what_does_not_fit_the_disk_is_refused_before_the_first_byte(monkeypatch):
    monkeypatch.setattr(
        cache_eviction.shutil, "disk_usage", lambda path: Disk(cache_eviction.MIN_FREE_BYTES + 1_000_000)
    )
    fill("fits", 30)
    with pytest.raises(
        cache_eviction.CacheFullError, match=r"would take about 12.0 MB, and the disk of .* has room for 1.0 MB"
    ):
        fill("does not", 400)
    assert not list(PixelCache("does not").folder.glob("*.arrow"))


class Disk:
    total = 10**12

    def __init__(self, free):
        self.free = free


def test_training_images_kept_as_jpeg(toy, caplog):
    """They take less, are near the images, and what is said of that is so; held-out images are not touched."""
    splits = load_image_folder(str(toy / "labelled"))
    transform = training_transform("endoscopy", 64)
    plain = make_pixel_reader(splits["train"], transform.resize, True, 2)
    with caplog.at_level("INFO", logger="hf_mae"):
        jpeg = make_pixel_reader(splits["train"], transform.resize, True, 2, quality=90)
    off = [np.abs(jpeg.array(i).astype(int) - plain.array(i)).mean() for i in range(len(splits["train"]))]
    said = re.search(r"quality 90: ([\d.]+) of the room .* differ by ([\d.]+) of 255", caplog.text)
    assert 0 < np.mean(off) == pytest.approx(float(said[2]), abs=1.0)
    sizes = [len(pixels.dataset[int(pixels.rows[0])]["pixels"][0].as_buffer()) for pixels in (jpeg, plain)]
    assert sizes[0] < sizes[1] / 2 and float(said[1]) < 0.5
    assert not cache_eviction.remove_damaged_files()
    with pytest.raises(CommandLineError, match="from 1 to 100"):
        DataArguments(cache_quality=0)


def test_a_disk_that_becomes_full_meanwhile(monkeypatch):
    def full(writer, batch):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hf_mae.data.pixel_cache.ArrowWriter.write_batch", full)
    with pytest.raises(cache_eviction.CacheFullError, match="became full while prepared images were written"):
        fill("meanwhile", 5)
    assert {file.name for file in PixelCache("meanwhile").folder.iterdir()} == {"about.json", "lock"}


def test_a_damaged_note_is_written_anew():
    store = fill("noted", 3)
    (store.folder / cache_eviction.METADATA_FILE).write_text("{")
    assert [part.description for part in cache_eviction.list_cache_entries()] == ["images (kept by an earlier version)"]
    store.add(["one more"], lambda index: (np.zeros((2, 2, 3), dtype=np.uint8), ""), 1, "/elsewhere")
    assert [part.description for part in cache_eviction.list_cache_entries()] == ["images of /elsewhere"]


def test_what_was_used_longest_ago_makes_room(monkeypatch):
    old, middle, new = fill("old", 20, hours_ago=5), fill("middle", 20, hours_ago=3), fill("new", 20)
    monkeypatch.setenv("HF_MAE_CACHE_LIMIT", "2MB")
    fill("more", 20)
    left = {store.preparation: bool(list(store.folder.glob("*.arrow"))) for store in (old, middle, new)}
    assert left == {"old": False, "middle": True, "new": True}
    with pytest.raises(cache_eviction.CacheFullError, match="--cache_limit 2.0 MB has room for"):
        fill("too much", 60)  # the new ones are of the last hour, and stay
    assert list(middle.folder.glob("*.arrow")), "nothing goes where it would not help"


def test_training_goes_on_without_a_cache(toy, monkeypatch, caplog):
    splits = load_image_folder(str(toy / "labelled"))
    transform = training_transform("endoscopy", 32)
    kept = make_pixel_reader(splits["train"], transform.resize, True, 2)
    monkeypatch.setenv("HF_MAE_CACHE_LIMIT", "10KB")
    transform = training_transform("endoscopy", 48)
    plain = make_pixel_reader(splits["train"], transform.resize, True, 2)
    assert isinstance(plain, PixelReader) and "decoded anew in every epoch" in caplog.text
    assert not isinstance(kept, PixelReader)


def test_used_files_are_the_last_to_go(toy):
    splits = load_image_folder(str(toy / "labelled"))
    transform = training_transform("endoscopy", 32)
    store = make_pixel_reader(splits["train"], transform.resize, True, 2)
    file = next((cache_folder() / cache_eviction.IMAGES_DIR).glob("*/*.arrow"))
    os.utime(file, (0, 0))
    again = make_pixel_reader(splits["train"], transform.resize, True, 2)
    assert time.time() - file.stat().st_mtime < 60
    assert np.array_equal(store.array(3), again.array(3))


@pytest.mark.parametrize(
    "text, size", [("200GB", 200_000_000_000), ("1.5 tb", 1_500_000_000_000), ("10K", 10_000), ("7", 7), ("", None)]
)
def test_sizes(text, size):
    assert parse_byte_size(text) == size


@pytest.mark.parametrize("text", ["much", "-1GB", "GB"])
def test_what_is_no_size(text):
    with pytest.raises(CommandLineError, match="is a size, as 200GB"):
        parse_byte_size(text)


def test_the_command_lists_checks_and_removes(toy, tmp_path):
    env = {"HF_HOME": str(tmp_path / "home")}
    assert "nothing is kept" in run_cli("cache", env=env).stdout
    run_cli("prepare", toy / "labelled", "--image_size", 32, "--cache_limit", "1GB", env=env)
    listed = run_cli("cache", env=env).stdout
    assert f"images of {toy / 'labelled'}" in listed and "KB in" in listed
    files = sorted((tmp_path / "home" / "hf_mae" / "images").glob("*/*.arrow"))
    with open(files[0], "r+b") as file:
        file.truncate(files[0].stat().st_size // 2)
    checked = run_cli("cache", "check", env=env).stdout
    assert str(files[0]) in checked and "1 damaged file removed" in checked
    assert "all is whole" in run_cli("cache", "check", env=env).stdout
    refused = run_cli("cache", "remove", "nothing-of-this-name", env=env, status=1)
    assert "The cache holds no nothing-of-this-name" in refused.stderr
    assert "needs the NAME" in run_cli("cache", "remove", env=env, status=2).stderr
    assert "are free again" in run_cli("cache", "remove", "all", env=env).stdout
    assert "nothing is kept" in run_cli("cache", env=env).stdout
    small = ("prepare", toy / "labelled", "--image_size", 32, "--cache_limit", "10KB")
    assert "has room for" in run_cli(*small, env=env, status=1).stderr
    run_cli(*small, "--cache", "false", env=env)
    wrong = run_cli("prepare", toy / "labelled", "--cache_limit", "much", env=env, status=2)
    assert "--cache_limit is a size, as 200GB" in wrong.stderr
