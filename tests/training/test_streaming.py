"""Streams yield each image once per epoch, and resume at any position."""

import io
import shutil
from itertools import islice

import datasets
import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from support.messages import logged, raises

from hf_mae.data.images.messages import ImageMessage
from hf_mae.data.images.transforms import pretraining_transform
from hf_mae.data.messages import DataMessage
from hf_mae.data.sources.shard_writer import write_shards
from hf_mae.data.sources.streams import find_stream_files, iter_stream_images, stream_fingerprint
from hf_mae.data.sources.unlabelled import load_unlabelled
from hf_mae.settings.data import PretrainingDataArguments
from hf_mae.settings.messages import SettingsMessage
from hf_mae.training import streaming
from hf_mae.training.messages import TrainingMessage
from hf_mae.training.streaming import ImageStream, StreamLoader, check_enough_stream_files, load_first_images

IMAGES = 40


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Forty images in shards; each has a different colour, which identifies it."""
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
    """A transform without augmentation."""

    resize = None

    @staticmethod
    def augment(image):
        return torch.from_numpy(np.array(image))


def numbers(items):
    return [int(item["pixel_values"][0, 0, 0]) // 6 for item in items]


def test_an_epoch_contains_each_image_once_in_any_number_of_processes(shards):
    files, count = find_stream_files(str(shards))
    assert len(files) >= 8 and count == IMAGES
    stream = numbers(islice(ImageStream(files, Plain), 2 * IMAGES))
    first, second = stream[:IMAGES], stream[IMAGES:]
    assert sorted(first) == sorted(second) == list(range(IMAGES)) and first != second
    by_rank = [set(numbers(islice(ImageStream(files, Plain, rank=rank, world_size=2), 15))) for rank in (0, 1)]
    assert not by_rank[0] & by_rank[1]
    by_rank = [numbers(islice(ImageStream(files[:3], Plain, rank=rank, world_size=2), 3)) for rank in (0, 1)]
    assert not set(by_rank[0]) & set(by_rank[1])  # 3 files cannot be divided evenly
    again = numbers(islice(ImageStream(files, Plain), IMAGES))
    assert again == first != numbers(islice(ImageStream(files, Plain, seed=1), IMAGES))


@pytest.mark.parametrize("done", [0, 1, 2, 7, IMAGES - 1, IMAGES, IMAGES + 5])
def test_a_stream_resumes_at_any_position(shards, done):
    files, _ = find_stream_files(str(shards))
    expected = numbers(islice(ImageStream(files, Plain), 2 * IMAGES))
    interrupted, resumed = ImageStream(files, Plain), ImageStream(files, Plain)
    assert numbers(islice(interrupted, done)) == expected[:done]
    resumed.load_state_dict(interrupted.state_dict())
    assert numbers(islice(resumed, 2 * IMAGES - done)) == expected[done:]


def test_completed_files_are_not_read_again(shards, tmp_path):
    """They are replaced: a stream that resumes in the last file reads no other."""
    copies = tmp_path / "copies"
    shutil.copytree(shards, copies)
    files, _ = find_stream_files(str(copies))
    interrupted = ImageStream(files, Plain)
    expected = numbers(islice(ImageStream(files, Plain), IMAGES))
    assert numbers(islice(interrupted, IMAGES - 1)) == expected[:-1]
    order = np.random.default_rng([0, 0]).permutation(len(files))
    for index in order[:-2]:
        shutil.copy(files[order[-1]], files[index])  # reading them would give other images
    resumed = ImageStream(files, Plain)
    resumed.load_state_dict(interrupted.state_dict())
    assert numbers(islice(resumed, 1)) == expected[-1:]


class Arguments:
    process_index, dataloader_pin_memory, dataloader_prefetch_factor = 0, False, None

    def __init__(self, workers):
        self.dataloader_num_workers = workers


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_resume_from_a_checkpoint(shards, tmp_path, workers):
    files, _ = find_stream_files(str(shards))
    transform = pretraining_transform("endoscopy", 32)

    def loader():
        return StreamLoader(ImageStream(files, transform), 3, Arguments(workers))

    expected = [batch["pixel_values"] for batch in islice(loader().dataloader, 12)]
    interrupted = loader()
    for _ in islice(interrupted.dataloader, 5):
        pass
    interrupted.save(tmp_path)
    resumed = loader()
    resumed.load(tmp_path)
    batches = [batch["pixel_values"] for batch in islice(resumed.dataloader, 7)]
    assert all(torch.equal(one, other) for one, other in zip(batches, expected[5:], strict=True))
    with raises(TrainingMessage.STREAM_WORKERS_DIFFER, saved=workers, workers=1):
        StreamLoader(ImageStream(files, transform), 3, Arguments(1)).load(tmp_path)
    with raises(TrainingMessage.CHECKPOINT_WITHOUT_STREAM):
        resumed.load(tmp_path / "another")


def encoded(number):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (6 * number, 0, 0)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": f"{number}.png"}


def test_parquet_files_and_remote_stores_are_streamed(shards, tmp_path):
    features = datasets.Features({"image": datasets.Image()})
    for index in range(2):
        rows = [encoded(number) for number in range(10 * index, 10 * index + 10)]
        datasets.Dataset.from_dict({"image": rows}, features=features).to_parquet(tmp_path / f"{index}.parquet")
    files, _ = find_stream_files(str(tmp_path))
    assert sorted(numbers(islice(ImageStream(files, Plain), 20))) == list(range(20))
    assert len(load_first_images(files, 4)) == 4
    memory = fsspec.filesystem("memory")
    memory.put(f"{shards}/", "/bucket/streamed", recursive=True)
    remote_files, _ = find_stream_files("memory://bucket/streamed")
    assert stream_fingerprint(remote_files) == stream_fingerprint(find_stream_files(str(shards))[0])
    assert sorted(numbers(islice(ImageStream(remote_files, Plain), IMAGES))) == list(range(IMAGES))


def test_a_remote_file_is_opened_again_after_an_error(shards, monkeypatch):
    file = find_stream_files(str(shards))[0][0]
    images, opened = list(iter_stream_images(file)), []

    def interrupted(name):
        opened.append(name)
        yield from images[:2] if len(opened) == 1 else images
        if len(opened) == 1:
            raise OSError("connection reset")

    monkeypatch.setattr(streaming, "iter_stream_images", interrupted)
    monkeypatch.setattr(streaming, "RETRY_SECONDS", 0.0)
    assert load_first_images(["memory://x"], 100)["file_name"][:] == [name for name, _ in images]
    assert len(opened) == 2 and len(images) > 2
    opened.clear()
    with raises(DataMessage.UNREADABLE_STREAM_FILE, file="x.tar", reason="connection reset"):
        load_first_images(["x.tar"], 100)


def test_excluded_and_unreadable_images_are_skipped(tmp_path, caplog):
    features = datasets.Features({"image": datasets.Image()})
    rows = [encoded(1), encoded(2), {"bytes": b"broken", "path": "3.png"}]
    datasets.Dataset.from_dict({"image": rows}, features=features).to_parquet(tmp_path / "a.parquet")
    files, _ = find_stream_files(str(tmp_path))
    with raises(ImageMessage.UNREADABLE_IMAGE, file="3.png", reason=ImageMessage.UNSUPPORTED_FORMAT.render()):
        list(islice(ImageStream(files, Plain), 3))
    stream = ImageStream(files, Plain, on_bad_image="skip", excluded_stems=frozenset({"1"}))
    assert numbers(islice(stream, 3)) == [2, 2, 2]
    assert logged(caplog.records, TrainingMessage.STREAMED_IMAGE_SKIPPED, file="3.png")
    with raises(TrainingMessage.NO_READABLE_STREAMED_IMAGE):
        next(iter(ImageStream(files, Plain, on_bad_image="skip", excluded_stems=frozenset({"1", "2"}))))
    datasets.Dataset.from_dict({"text": ["a"]}).to_parquet(tmp_path / "b.parquet")
    with raises(DataMessage.IMAGE_COLUMN_NOT_UNIQUE, source=str(tmp_path / "b.parquet"), columns=["text"]):
        next(iter(ImageStream([str(tmp_path / "b.parquet")], Plain)))
    (tmp_path / "c.parquet").write_bytes(b"no parquet")
    with raises(DataMessage.UNREADABLE_STREAM_FILE, file=str(tmp_path / "c.parquet")):
        next(iter(ImageStream([str(tmp_path / "c.parquet")], Plain)))


def test_invalid_sources_and_flags_are_rejected(tmp_path):
    with raises(DataMessage.NO_STREAM_FILES, source=tmp_path):
        find_stream_files(str(tmp_path))
    with raises(DataMessage.SOURCE_UNREACHABLE, source="nosuchprotocol://bucket"):
        find_stream_files("nosuchprotocol://bucket")
    with raises(TrainingMessage.TOO_FEW_STREAM_FILES, count=1, num_loaders=2):
        check_enough_stream_files(["a.tar"], 2, "shards")
    for flags, message in (
        ({"cache_shortest_edge": 448}, SettingsMessage.STREAMING_WITH_CACHE),
        ({"mean_std": ["auto"]}, SettingsMessage.STREAMING_WITH_AUTO_MEAN_STD),
        ({"exclude": ["a.csv"]}, SettingsMessage.STREAMING_WITH_HASHES),
    ):
        with raises(message):
            PretrainingDataArguments(streaming=True, **flags)
