"""Streams give every image of an epoch once, and go on at any place."""

import io
import shutil
from itertools import islice

import datasets
import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

from hf_mae.data import streaming
from hf_mae.data.shard_writer import write_shards
from hf_mae.data.streaming import (
    ImageStream,
    check_enough_stream_files,
    find_stream_files,
    load_first_images,
    stream_fingerprint,
)
from hf_mae.data.transforms import pretraining_transform
from hf_mae.data.unlabelled import load_unlabelled
from hf_mae.errors import UsageError
from hf_mae.settings.data import PretrainingDataArguments
from hf_mae.training.streaming import StreamLoader

IMAGES = 40


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Forty images of one colour each, which tells them, in shards."""
    root = tmp_path_factory.mktemp("streams")
    (root / "images").mkdir()
    for number in range(IMAGES):
        Image.new("RGB", (32, 32), (6 * number, 0, 0)).save(root / "images" / f"{number:02d}.png")
    images = datasets.DatasetDict({"train": load_unlabelled(str(root / "images"), "error")})
    return write_shards(images, root / "shards", 400, 0, 1).folder


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(streaming, "SHUFFLE_WINDOW", 3)


class Plain:
    """No draws: the pixels as they are."""

    resize = None

    @staticmethod
    def augment(image):
        return torch.from_numpy(np.array(image))


def numbers(items):
    return [int(item["pixel_values"][0, 0, 0]) // 6 for item in items]


def test_an_epoch_is_every_image_once_whoever_shares_it(shards):
    files, count = find_stream_files(str(shards))
    assert len(files) >= 8 and count == IMAGES
    one = numbers(islice(ImageStream(files, Plain), 2 * IMAGES))
    first, second = one[:IMAGES], one[IMAGES:]
    assert sorted(first) == sorted(second) == list(range(IMAGES)) and first != second
    shares = [set(numbers(islice(ImageStream(files, Plain, rank=process, world_size=2), 15))) for process in (0, 1)]
    assert not shares[0] & shares[1]
    again = numbers(islice(ImageStream(files, Plain), IMAGES))
    assert again == first != numbers(islice(ImageStream(files, Plain, seed=1), IMAGES))


@pytest.mark.parametrize("done", [0, 1, 2, 7, IMAGES - 1, IMAGES, IMAGES + 5])
def test_it_goes_on_at_any_place(shards, done):
    files, _ = find_stream_files(str(shards))
    whole = numbers(islice(ImageStream(files, Plain), 2 * IMAGES))
    cut, rest = ImageStream(files, Plain), ImageStream(files, Plain)
    assert numbers(islice(cut, done)) == whole[:done]
    rest.load_state_dict(cut.state_dict())
    assert numbers(islice(rest, 2 * IMAGES - done)) == whole[done:]


def test_files_that_are_done_are_not_opened_again(shards, tmp_path):
    """They are taken away: whoever goes on in the last file needs no other."""
    copies = tmp_path / "copies"
    shutil.copytree(shards, copies)
    files, _ = find_stream_files(str(copies))
    cut = ImageStream(files, Plain)
    whole = numbers(islice(ImageStream(files, Plain), IMAGES))
    assert numbers(islice(cut, IMAGES - 1)) == whole[:-1]
    order = np.random.default_rng([0, 0]).permutation(len(files))
    for place in order[1:-2]:  # the first one tells the columns
        shutil.copy(files[order[0]], files[place])  # other images, were they read
    rest = ImageStream(files, Plain)
    rest.load_state_dict(cut.state_dict())
    assert numbers(islice(rest, 1)) == whole[-1:]


class Arguments:
    process_index, dataloader_pin_memory, dataloader_prefetch_factor = 0, False, None

    def __init__(self, workers):
        self.dataloader_num_workers = workers


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_go_on_from_a_checkpoint(shards, tmp_path, workers):
    files, _ = find_stream_files(str(shards))
    transform = pretraining_transform("endoscopy", 32)

    def loader():
        return StreamLoader(ImageStream(files, transform), 3, Arguments(workers))

    whole = [batch["pixel_values"] for batch in islice(loader().dataloader, 12)]
    cut = loader()
    for _ in islice(cut.dataloader, 5):
        pass
    cut.save(tmp_path)
    rest = loader()
    rest.load(tmp_path)
    found = [batch["pixel_values"] for batch in islice(rest.dataloader, 7)]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, whole[5:], strict=True))
    with pytest.raises(UsageError, match="go on with that number"):
        StreamLoader(ImageStream(files, transform), 3, Arguments(1)).load(tmp_path)
    with pytest.raises(UsageError, match="was not saved by a run with --streaming"):
        rest.load(tmp_path / "another")


def encoded(number):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (6 * number, 0, 0)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": f"{number}.png"}


def test_parquet_and_stores_elsewhere(shards, tmp_path):
    features = datasets.Features({"image": datasets.Image()})
    for part in range(2):
        rows = [encoded(number) for number in range(10 * part, 10 * part + 10)]
        datasets.Dataset.from_dict({"image": rows}, features=features).to_parquet(tmp_path / f"{part}.parquet")
    files, _ = find_stream_files(str(tmp_path))
    assert sorted(numbers(islice(ImageStream(files, Plain), 20))) == list(range(20))
    assert len(load_first_images(files, 4)) == 4
    memory = fsspec.filesystem("memory")
    memory.put(f"{shards}/", "/bucket/streamed", recursive=True)
    there, _ = find_stream_files("memory://bucket/streamed")
    assert stream_fingerprint(there) == stream_fingerprint(find_stream_files(str(shards))[0])
    assert sorted(numbers(islice(ImageStream(there, Plain), IMAGES))) == list(range(IMAGES))


def test_what_is_left_out_and_what_is_broken(tmp_path, caplog):
    features = datasets.Features({"image": datasets.Image()})
    rows = [encoded(1), encoded(2), {"bytes": b"broken", "path": "3.png"}]
    datasets.Dataset.from_dict({"image": rows}, features=features).to_parquet(tmp_path / "a.parquet")
    files, _ = find_stream_files(str(tmp_path))
    with pytest.raises(UsageError, match="3.png cannot be read .it is no image"):
        list(islice(ImageStream(files, Plain), 3))
    stream = ImageStream(files, Plain, on_bad_image="skip", excluded_stems=frozenset({"1"}))
    assert numbers(islice(stream, 3)) == [2, 2, 2] and "3.png cannot be read" in caplog.text
    with pytest.raises(UsageError, match="not one image can be read"):
        next(iter(ImageStream(files, Plain, on_bad_image="skip", excluded_stems=frozenset({"1", "2"}))))
    datasets.Dataset.from_dict({"text": ["a"]}).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(UsageError, match="b.parquet has no column of images; it has text"):
        next(iter(ImageStream([str(tmp_path / "b.parquet")], Plain)))
    (tmp_path / "c.parquet").write_bytes(b"no parquet")
    with pytest.raises(UsageError, match="cannot be read"):
        next(iter(ImageStream([str(tmp_path / "c.parquet")], Plain)))


def test_what_cannot_be_streamed(tmp_path):
    with pytest.raises(UsageError, match="holds no .tar or .parquet files to stream"):
        find_stream_files(str(tmp_path))
    with pytest.raises(UsageError, match="cannot be reached"):
        find_stream_files("nosuchprotocol://bucket")
    with pytest.raises(UsageError, match="has 1 file for 2 loaders"):
        check_enough_stream_files(["a.tar"], 2, "here")
    for flags in ({"cache_shortest_edge": 448}, {"mean_std": ["auto"]}, {"exclude": ["a.csv"]}):
        with pytest.raises(UsageError, match="--streaming"):
            PretrainingDataArguments(streaming=True, **flags)
