"""Training and evaluation datasets: the cache is lossless, and the augmentation does not depend on the machine."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from support.messages import raises
from torch.utils.data import DataLoader

from hf_mae.data import EvalDataset, TrainDataset, image_processor, load_image_folder, training_transform
from hf_mae.data.images.messages import ImageMessage
from hf_mae.data.images.torch_datasets import collate


@pytest.fixture(scope="module")
def splits(toy):
    return load_image_folder(toy / "labelled")


def test_the_cache_does_not_change_pixels(splits):
    transform = training_transform("endoscopy", 48)
    cached, plain = (TrainDataset(splits["train"], transform, seed=3, cache=cache) for cache in (True, False))
    for epoch in (0, 1):
        cached.set_epoch(epoch), plain.set_epoch(epoch)
        for index in (0, 7, 59):
            actual, expected = cached[index], plain[index]
            assert torch.equal(actual["pixel_values"], expected["pixel_values"])
            assert actual["labels"] == expected["labels"]


def test_a_second_run_reads_the_cache(splits, monkeypatch):
    transform = training_transform("endoscopy", 40)
    first = TrainDataset(splits["train"], transform)
    monkeypatch.setattr("hf_mae.data.images.torch_datasets.read_rgb", lambda row: pytest.fail("decoded again"))
    second = TrainDataset(splits["train"], transform)
    assert torch.equal(first[5]["pixel_values"], second[5]["pixel_values"])


def test_a_changed_image_is_decoded_again(tmp_path):
    from PIL import Image

    for name, colour in (("a/1.png", 10), ("b/1.png", 200)):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (8, 8), (colour,) * 3).save(tmp_path / name)
    transform = training_transform("endoscopy", 8, (0, 0, 0), (1, 1, 1))
    before = TrainDataset(load_image_folder(tmp_path)["train"], transform)[0]["pixel_values"]
    Image.new("RGB", (8, 8), (90,) * 3).save(tmp_path / "a/1.png")
    after = TrainDataset(load_image_folder(tmp_path)["train"], transform)[0]["pixel_values"]
    assert before.max() == pytest.approx(10 / 255) and after.max() == pytest.approx(90 / 255)


@pytest.mark.parametrize("family", ["endoscopy", "imagenet"])
def test_evaluation_images_equal_the_processor(splits, family):
    processor = image_processor(family, 48)
    for cache in (True, False):
        images = EvalDataset(splits["test"], processor, cache=cache)
        for index in (0, 11):
            expected = processor(splits["test"][index]["image"], return_tensors="pt")["pixel_values"][0]
            assert torch.equal(images[index]["pixel_values"], expected)


@pytest.mark.parametrize("workers, persistent", [(0, False), (2, False), (2, True)])
def test_augmentation_does_not_depend_on_workers(splits, workers, persistent):
    def load_epoch(images, loader, epoch):
        images.set_epoch(epoch)
        return torch.cat([batch["pixel_values"] for batch in loader])

    transform = training_transform("imagenet", 32)
    images = TrainDataset(splits["train"], transform, seed=5)
    loader = DataLoader(images, 16, collate_fn=collate, num_workers=workers, persistent_workers=persistent)
    plain_images = TrainDataset(splits["train"], transform, seed=5)
    plain = DataLoader(plain_images, 16, collate_fn=collate)
    first = load_epoch(images, loader, 0)
    assert torch.equal(first, load_epoch(plain_images, plain, 0))
    second = load_epoch(images, loader, 1)
    assert torch.equal(second, load_epoch(plain_images, plain, 1)) and not torch.equal(first, second)


def test_cached_images_have_a_maximum_size_or_no_cache(splits):
    from hf_mae.settings.data import DataArguments

    assert DataArguments(transforms="imagenet").resolve_cache_shortest_edge(224) == 448
    assert DataArguments(transforms="imagenet", cache_shortest_edge=0).resolve_cache_shortest_edge(224) is None
    assert DataArguments(transforms="imagenet", cache=False).resolve_cache_shortest_edge(224) is None
    train = splits["train"]
    uncached, large, small = (
        TrainDataset(train, training_transform("imagenet", 32, cache_shortest_edge=edge), seed=1)
        for edge in (None, 64, 40)
    )
    for index in range(6):  # the images have 64 x 64 pixels, so 64 loses no resolution
        assert torch.equal(uncached[index]["pixel_values"], large[index]["pixel_values"])
    assert small.pixels[0].size == (40, 40) and large.pixels[0].size == (64, 64)
    assert not torch.equal(uncached[0]["pixel_values"], small[0]["pixel_values"])


def test_collate_drops_text():
    items = [{"pixel_values": torch.zeros(3, 4, 4), "labels": i, "name": "x"} for i in range(2)]
    batch = collate(items)
    assert batch["labels"].tolist() == [0, 1] and set(batch) == {"pixel_values", "labels"}
    with raises(ImageMessage.NO_PIXEL_VALUES, keys=["image"]):
        collate([{"image": np.zeros(3)}])


def test_caching_does_not_deadlock_after_torch_has_started_threads(toy, tmp_path):
    """A fork does not contain the threads of OpenMP, so decoding in forked processes waited forever."""
    code = f"""
import torch
torch.set_num_threads(2)
torch.randn(1000, 1000) @ torch.randn(1000, 1000)
from hf_mae.data import *
from hf_mae.data.images.torch_datasets import collate
train = load_image_folder({str(toy / "unlabelled" / "..")!r} + "/labelled")["train"]
TrainDataset(train, training_transform("endoscopy", 48), num_workers=2)
EvalDataset(train, image_processor("imagenet", 48), num_workers=2)
images = EvalDataset(train, image_processor("imagenet", 48), cache=False)
print(sum(len(batch["labels"]) for batch in torch.utils.data.DataLoader(images, 8, collate_fn=collate, num_workers=2)))
"""
    environment = os.environ | {"HF_HOME": str(tmp_path)}
    environment.pop("OMP_NUM_THREADS", None)
    completed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment
    )
    assert completed.stdout.split()[-1] == "60", completed.stderr


def test_reading_an_image_does_not_depend_on_the_size_of_the_dataset(toy, monkeypatch):
    images = TrainDataset(load_image_folder(toy / "labelled")["train"], training_transform("endoscopy", 24))
    expected = images[3]["pixel_values"]
    monkeypatch.setattr(TrainDataset, "__len__", lambda self: 10**12)  # a list of all indices would not fit into memory
    assert torch.equal(images[3]["pixel_values"], expected)
