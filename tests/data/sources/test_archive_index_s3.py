"""Shards in S3 are read like local ones: by index, from archives, as a stream, and in worker processes."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from support.fake_s3 import clear_connections, put_folder, run_fake_s3, use_fake_s3
from support.messages import raises, shows

from hf_mae.cli.main import main
from hf_mae.data.images.image_io import read_rgb
from hf_mae.data.messages import DataMessage
from hf_mae.data.sources.shard_writer import write_shards
from hf_mae.data.sources.split_loading import load_image_folder
from hf_mae.data.sources.streams import find_stream_files, iter_stream_images
from hf_mae.data.sources.unlabelled import load_unlabelled

pytest.importorskip("s3fs", reason="s3fs is not installed here")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Objects by BUCKET/KEY, and the requested keys."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with use_fake_s3(monkeypatch) as fake:
        yield fake


@pytest.fixture
def folder(tmp_path):
    """Two classes with six images of one colour each."""
    for number in range(12):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(path)
    return tmp_path / "images"


class Reds(torch.utils.data.Dataset):
    """The red values of the images, read at each access."""

    def __init__(self, images):
        self.paths = [row["path"] for row in images.cast_column("image", datasets.Image(decode=False))["image"]]

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return int(np.asarray(read_rgb(self.paths[index]))[0, 0, 0])


def test_remote_shards_equal_local_ones(store, folder, tmp_path, capsys):
    objects, requested_keys = store
    local = load_image_folder(folder)
    put_folder(objects, write_shards(local, tmp_path / "packed", 2_000, 0, 1).folder, "bucket/set")
    remote = load_image_folder("s3://bucket/set")
    assert remote["train"]["file_name"][:] == local["train"]["file_name"][:]
    assert remote["train"]["labels"][:] == local["train"]["labels"][:]
    reds = [20 * int(name[-6:-4]) for name in local["train"]["file_name"]]
    assert [Reds(remote["train"])[n] for n in range(12)] == reds
    # A forked process opens its own connections.
    loader = torch.utils.data.DataLoader(Reds(remote["train"]), 4, num_workers=2, multiprocessing_context="fork")
    assert torch.cat(list(loader)).tolist() == reds
    assert main(["prepare", "s3://bucket/set", "--image_size", "16", "--quiet"]) == 0
    assert "all" in capsys.readouterr().out
    assert any(key.endswith(".tar") for key in requested_keys)
    # Archives without an index.
    del objects["bucket/set/index.parquet"]
    clear_connections()
    assert load_image_folder("s3://bucket/set")["train"]["file_name"][:] == local["train"]["file_name"][:]


def test_tar_files_are_streamed(store, folder, tmp_path):
    objects, _ = store
    images = datasets.DatasetDict({"train": load_unlabelled(str(folder), "error")})
    put_folder(objects, write_shards(images, tmp_path / "packed", 200, 0, 1).folder, "bucket/frames")

    orders = []
    for source in ("s3://bucket/frames", str(tmp_path / "packed")):
        files, count = find_stream_files(source)
        assert len(files) > 1 and count == 12
        images = [image for file in files for _, image in iter_stream_images(file)]
        orders.append([read_rgb(image).getpixel((0, 0))[0] // 20 for image in images])
    assert orders[0] == orders[1] and sorted(orders[0]) == list(range(12))


def test_an_unreachable_store_is_reported(store, monkeypatch, capsys):
    objects, _ = store
    assert main(["prepare", "s3://bucket/nothing"]) == 1
    assert shows(capsys.readouterr().err, DataMessage.NO_DATA_AT_URL, source="s3://bucket/nothing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    clear_connections()
    with raises(DataMessage.SOURCE_UNREACHABLE, source="s3://bucket/set"):
        load_image_folder("s3://bucket/set")
    with raises(DataMessage.SOURCE_UNREACHABLE, source="s3://bucket/set"):
        find_stream_files("s3://bucket/set")


def test_servers_without_listings_are_read_by_index(folder, tmp_path, monkeypatch):
    """Like many file servers, it serves files by name, and forbids folder listings."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    packed = write_shards(load_image_folder(folder), tmp_path / "packed", 2_000, 0, 1).folder
    with run_fake_s3(missing_status=403) as (objects, url, _):
        put_folder(objects, packed, "files/set")
        for source in (f"{url}/files/set", f"{url}/files/set/train-00000.tar"):
            train = load_image_folder(source)["train"]
            assert [Reds(train)[n] for n in (0, 11)] == [20 * int(train["file_name"][n][-6:-4]) for n in (0, 11)]
