"""The cache of decoded images is shared, resumable and lossless."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from support.messages import raises
from support.paths import ROOT

from hf_mae.data import TrainDataset, load_image_folder, training_transform
from hf_mae.data.images import pixel_cache
from hf_mae.data.images.cache_eviction import CacheFullError
from hf_mae.data.images.image_io import read_rgb
from hf_mae.data.images.messages import ImageMessage
from hf_mae.data.images.pixel_cache import PixelCache
from hf_mae.data.images.torch_datasets import CachedPixelReader
from hf_mae.data.images.transforms import SquareResize
from hf_mae.files.caches import file_keys


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr("hf_mae.files.caches.cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def make_image(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 255, (5 + index % 3, 4, 3), dtype=np.uint8)


def read_images(pixels: PixelCache, keys: list[str]) -> list[np.ndarray]:
    dataset, indices = pixels.get_rows(keys)
    rows = [dataset[int(index)] for index in indices]
    return [np.frombuffer(r["pixels"][0].as_buffer(), np.uint8).reshape(r["shape"][0].as_py()) for r in rows]


def test_images_are_restored_and_decoded_once(cache, monkeypatch):
    monkeypatch.setattr(pixel_cache, "MIN_IMAGES_PER_FILE", 7)
    keys = [f"k{index}" for index in range(40)]
    pixels, decoded = PixelCache("a resize"), []

    def decode(index):
        decoded.append(index)
        return make_image(index), f"digest {index}"

    pixels.add(keys[:20], decode, 2)
    pixels.add(keys[10:40:2], lambda index: decode(10 + 2 * index), 2)  # a split that overlaps with the first
    assert sorted(decoded) == sorted({*range(20), *range(10, 40, 2)})
    order = [38, 3, 19, 20, 0]
    for image, index in zip(read_images(pixels, [keys[index] for index in order]), order):
        assert np.array_equal(image, make_image(index))
    assert PixelCache("another resize").get_digests(["k20"]) == [""] and pixels.get_digests(["k20"]) == ["digest 20"]
    pixels.add(["twice", "twice"], decode, 1)
    assert len(read_images(pixels, ["twice", "twice"])) == 2


def test_an_error_keeps_complete_files_and_leaves_no_partial_file(cache, monkeypatch):
    monkeypatch.setattr(pixel_cache, "MIN_IMAGES_PER_FILE", 8)
    keys, pixels = [f"k{index}" for index in range(30)], PixelCache("a resize")

    def decode(index):
        if index == 21:
            raise OSError("broken file")
        return make_image(index), f"digest {index}"

    with pytest.raises(OSError, match="broken file"):
        pixels.add(keys, decode, 2)
    assert [bool(digest) for digest in pixels.get_digests(keys)] == [True] * 16 + [False] * 14
    assert not list(pixels.folder.glob(".*.partial"))


def test_images_that_are_not_cached_leave_no_file(cache):
    pixels = PixelCache("a resize")
    pixels.add(["a", "b"], lambda index: (make_image(index), "digest") if index else None, 1)
    pixels.add(["a"], lambda index: None, 1)
    assert pixels.get_digests(["a", "b"]) == ["", "digest"] and len(list(pixels.folder.glob("*arrow*"))) == 1
    with raises(ImageMessage.CACHED_IMAGES_REMOVED, CacheFullError):
        pixels.get_rows(["a", "b"])
    assert not list(pixels.folder.glob(".*.partial"))


def test_folds_share_cached_images(cache, toy, monkeypatch):
    images = load_image_folder(toy / "labelled")["train"]
    decoded = []
    resize = SquareResize(24)
    monkeypatch.setattr("hf_mae.data.images.torch_datasets.read_rgb", lambda row: decoded.append(1) or read_rgb(row))
    CachedPixelReader(images.select(range(40)), resize, 2)
    assert len(decoded) == 40
    pixels = CachedPixelReader(images.select(range(20, 60)), resize, 2)
    assert len(decoded) == 60
    expected = resize(Image.open(images[25]["image"].filename).convert("RGB"))
    assert np.array_equal(np.asarray(pixels[5]), np.asarray(expected))


def test_a_killed_preparation_resumes_and_concurrent_ones_share_the_work(tmp_path):
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "one.jpg")
    content = (tmp_path / "one.jpg").read_bytes()
    for number in range(3000):
        (folder / f"{number:04d}.jpg").write_bytes(content)
    code = f"""
import os; os.environ["HF_HOME"] = {str(tmp_path / "home")!r}
from pathlib import Path
from hf_mae.data.images.pixel_cache import PixelCache
from hf_mae.files.caches import file_keys
from hf_mae.data.images.transforms import SquareResize
from PIL import Image
import numpy as np
paths = sorted(map(str, Path({str(folder)!r}).iterdir()))
done = []
def decode(index):
    done.append(index)
    return np.asarray(SquareResize(224)(Image.open(paths[index]).convert("RGB"))), ""
PixelCache("x").add([file_keys([path])[0] for path in paths], decode, 2)
print(len(done))
"""
    argv = [sys.executable, "-c", code]
    killed = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while len(list((tmp_path / "home").rglob("*.arrow"))) < 2 and time.time() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    num_cached = 512 * len(list((tmp_path / "home").rglob("*.arrow")))
    assert 1024 <= num_cached < 3000
    both = [subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in "12"]
    counts = [process.communicate(timeout=300) for process in both]
    assert sum(int(out) for out, _ in counts) == 3000 - num_cached, counts


def test_a_key_changes_with_the_file(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    before = file_keys([str(path)])[0]
    assert file_keys([str(path)])[0] == before
    path.write_bytes(b"other")
    assert file_keys([str(path)])[0] != before


def test_workers_that_are_started_anew_read_it_too(cache, toy):
    """Spawned processes get the data set pickled; the pixels stay on disk."""
    import pickle

    images = TrainDataset(load_image_folder(toy / "labelled")["train"], training_transform("endoscopy", 24))
    handed = pickle.dumps(images.pixels)
    assert len(handed) < 100_000
    assert np.array_equal(np.asarray(pickle.loads(handed)[3]), np.asarray(images.pixels[3]))
