"""The size of the pixel cache is estimated and limited, and its entries are listed, checked and removed."""

import os
import time

import numpy as np
import pytest
from support.cli_process import run_cli
from support.messages import logged, raises, shows

from hf_mae.data.images import cache_eviction
from hf_mae.data.images.messages import ImageMessage
from hf_mae.data.images.pixel_cache import PixelCache
from hf_mae.data.images.torch_datasets import PixelReader, make_pixel_reader
from hf_mae.data.images.transforms import training_transform
from hf_mae.data.sources.split_loading import load_image_folder
from hf_mae.errors import CommandLineError
from hf_mae.files.caches import cache_folder
from hf_mae.settings.data import parse_byte_size
from hf_mae.settings.messages import SettingsMessage

SIDE = 100


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_MAE_CACHE_LIMIT", raising=False)


def fill(preparation: str, images: int, hours_ago: float = 0.0) -> PixelCache:
    """A cache of images of 30,000 bytes each, last used `hours_ago`."""
    cache = PixelCache(preparation)
    pixels = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    cache.add([f"{preparation} {index}" for index in range(images)], lambda index: (pixels, "digest"), 2, "/somewhere")
    for file in cache.folder.glob("*.arrow"):
        os.utime(file, (time.time() - 3600 * hours_ago,) * 2)
    return cache


def test_a_full_disk_is_detected_before_the_first_byte_is_written(monkeypatch):
    monkeypatch.setattr(
        cache_eviction.shutil, "disk_usage", lambda path: Disk(cache_eviction.MIN_FREE_BYTES + 1_000_000)
    )
    fill("fits", 30)
    sizes = {"required": "12.0 MB", "available": "1.0 MB"}
    with raises(ImageMessage.DISK_TOO_SMALL, cache_eviction.CacheFullError, **sizes):
        fill("does not", 400)
    assert not list(PixelCache("does not").folder.glob("*.arrow"))


class Disk:
    total = 10**12

    def __init__(self, free):
        self.free = free


def test_the_logged_loss_of_jpeg_caching_is_correct(toy, caplog):
    """JPEG needs less space, and the pixels differ little; other readers are lossless."""
    splits = load_image_folder(str(toy / "labelled"))
    transform = training_transform("endoscopy", 64)
    plain = make_pixel_reader(splits["train"], transform.resize, True, 2)
    with caplog.at_level("INFO", logger="hf_mae"):
        jpeg = make_pixel_reader(splits["train"], transform.resize, True, 2, quality=90)
    differences = [np.abs(jpeg.array(i).astype(int) - plain.array(i)).mean() for i in range(len(splits["train"]))]
    (record,) = (record for record in caplog.records if getattr(record, "code", None) is ImageMessage.JPEG_CACHE)
    assert record.attributes["quality"] == 90
    assert 0 < np.mean(differences) == pytest.approx(record.attributes["difference"], abs=1.0)
    sizes = [len(pixels.dataset[int(pixels.rows[0])]["pixels"][0].as_buffer()) for pixels in (jpeg, plain)]
    assert sizes[0] < sizes[1] / 2 and record.attributes["fraction"] < 0.5
    assert not cache_eviction.remove_damaged_files()


def test_a_disk_that_becomes_full_during_writing_leaves_no_partial_file(monkeypatch):
    def raise_disk_full(writer, batch):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hf_mae.data.images.pixel_cache.ArrowWriter.write_batch", raise_disk_full)
    with raises(ImageMessage.DISK_BECAME_FULL, cache_eviction.CacheFullError):
        fill("full", 5)
    assert {file.name for file in PixelCache("full").folder.iterdir()} == {"about.json", "lock"}


def test_damaged_metadata_is_replaced():
    cache = fill("damaged", 3)
    (cache.folder / cache_eviction.METADATA_FILE).write_text("{")
    assert [entry.description for entry in cache_eviction.list_cache_entries()] == ["images"]
    cache.add(["one more"], lambda index: (np.zeros((2, 2, 3), dtype=np.uint8), ""), 1, "/elsewhere")
    assert [entry.description for entry in cache_eviction.list_cache_entries()] == ["images of /elsewhere"]


def test_the_least_recently_used_images_are_evicted(monkeypatch):
    old, middle, new = fill("old", 20, hours_ago=5), fill("middle", 20, hours_ago=3), fill("new", 20)
    monkeypatch.setenv("HF_MAE_CACHE_LIMIT", "2MB")
    fill("more", 20)
    cached = {cache.preparation: bool(list(cache.folder.glob("*.arrow"))) for cache in (old, middle, new)}
    assert cached == {"old": False, "middle": True, "new": True}
    with raises(ImageMessage.CACHE_LIMIT_TOO_SMALL, cache_eviction.CacheFullError, limit="2.0 MB"):
        fill("too much", 60)  # images that were used within the last hour are not evicted
    assert list(middle.folder.glob("*.arrow")), "nothing is evicted if that would not free enough space"


def test_training_continues_without_a_cache(toy, monkeypatch, caplog):
    splits = load_image_folder(str(toy / "labelled"))
    transform = training_transform("endoscopy", 32)
    cached = make_pixel_reader(splits["train"], transform.resize, True, 2)
    monkeypatch.setenv("HF_MAE_CACHE_LIMIT", "10KB")
    transform = training_transform("endoscopy", 48)
    plain = make_pixel_reader(splits["train"], transform.resize, True, 2)
    assert isinstance(plain, PixelReader) and logged(caplog.records, ImageMessage.DECODING_EVERY_EPOCH)
    assert not isinstance(cached, PixelReader)


def test_use_updates_the_time_of_last_use(toy):
    splits = load_image_folder(str(toy / "labelled"))
    transform = training_transform("endoscopy", 32)
    reader = make_pixel_reader(splits["train"], transform.resize, True, 2)
    file = next((cache_folder() / cache_eviction.IMAGES_DIR).glob("*/*.arrow"))
    os.utime(file, (0, 0))
    again = make_pixel_reader(splits["train"], transform.resize, True, 2)
    assert time.time() - file.stat().st_mtime < 60
    assert np.array_equal(reader.array(3), again.array(3))


@pytest.mark.parametrize(
    "text, size", [("200GB", 200_000_000_000), ("1.5 tb", 1_500_000_000_000), ("10K", 10_000), ("7", 7), ("", None)]
)
def test_sizes_are_parsed(text, size):
    assert parse_byte_size(text) == size


@pytest.mark.parametrize("text", ["much", "-1GB", "GB"])
def test_invalid_sizes_are_rejected(text):
    with raises(SettingsMessage.INVALID_SIZE, CommandLineError, value=text):
        parse_byte_size(text)


def test_the_command_lists_checks_and_removes_entries(toy, tmp_path):
    env = {"HF_HOME": str(tmp_path / "home")}
    assert "is empty" in run_cli("cache", env=env).stdout
    run_cli("prepare", toy / "labelled", "--image_size", 32, "--cache_limit", "1GB", env=env)
    listed = run_cli("cache", env=env).stdout
    assert f"images of {toy / 'labelled'}" in listed and "KB in" in listed
    files = sorted((tmp_path / "home" / "hf_mae" / "images").glob("*/*.arrow"))
    with open(files[0], "r+b") as file:
        file.truncate(files[0].stat().st_size // 2)
    checked = run_cli("cache", "check", env=env).stdout
    assert str(files[0]) in checked and "Removed 1 damaged file" in checked
    assert "No cached file is damaged" in run_cli("cache", "check", env=env).stdout
    failed = run_cli("cache", "remove", "absent", env=env, status=1)
    assert shows(failed.stderr, ImageMessage.CACHE_ENTRY_NOT_FOUND, name="absent")
    assert shows(run_cli("cache", "remove", env=env, status=2).stderr, SettingsMessage.NAME_REQUIRED)
    assert "Freed" in run_cli("cache", "remove", "all", env=env).stdout
    assert "is empty" in run_cli("cache", env=env).stdout
    small = ("prepare", toy / "labelled", "--image_size", 32, "--cache_limit", "10KB")
    failed = run_cli(*small, env=env, status=1)
    assert shows(failed.stderr, ImageMessage.CACHE_LIMIT_TOO_SMALL, limit="10 KB")
    run_cli(*small, "--cache", "false", env=env)
    failed = run_cli("prepare", toy / "labelled", "--cache_limit", "much", env=env, status=2)
    assert shows(failed.stderr, SettingsMessage.INVALID_SIZE, value="much")
