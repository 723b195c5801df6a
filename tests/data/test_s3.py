"""Shards in S3 are read as those here: by an index, from archives, streamed, and in a loader's processes; a store that
cannot be had is one sentence."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from support.fake_s3 import clear_connections, put_folder, run_fake_s3, use_fake_s3

from hf_mae.cli.main import main
from hf_mae.data.folders import load_image_folder
from hf_mae.data.image_io import open_image
from hf_mae.data.shard_writer import write_shards
from hf_mae.data.streaming import ImageStream, find_stream_files
from hf_mae.data.unlabelled import load_unlabelled
from hf_mae.errors import UsageError

pytest.importorskip("s3fs", reason="s3fs is not installed here")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Objects by BUCKET/KEY, and the keys that were read."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with use_fake_s3(monkeypatch) as found:
        yield found


@pytest.fixture
def folder(tmp_path):
    """Two classes of six images, one colour each."""
    for number in range(12):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(path)
    return tmp_path / "images"


class Reds(torch.utils.data.Dataset):
    """What tells the images, read anew each time."""

    def __init__(self, images):
        self.places = [row["path"] for row in images.cast_column("image", datasets.Image(decode=False))["image"]]

    def __len__(self):
        return len(self.places)

    def __getitem__(self, index):
        with open_image(self.places[index]) as image:
            return int(np.asarray(image)[0, 0, 0])


def test_shards_are_read_where_they_lie(store, folder, tmp_path, capsys):
    objects, asked = store
    here = load_image_folder(folder)
    put_folder(objects, write_shards(here, tmp_path / "packed", 2_000, 0, 1).folder, "bucket/set")
    there = load_image_folder("s3://bucket/set")
    assert there["train"]["file_name"][:] == here["train"]["file_name"][:]
    assert there["train"]["labels"][:] == here["train"]["labels"][:]
    reds = [20 * int(name[-6:-4]) for name in here["train"]["file_name"]]
    assert [Reds(there["train"])[n] for n in range(12)] == reds
    # A process that was forked has connections of its own.
    loader = torch.utils.data.DataLoader(Reds(there["train"]), 4, num_workers=2, multiprocessing_context="fork")
    assert torch.cat(list(loader)).tolist() == reds
    assert main(["prepare", "s3://bucket/set", "--image_size", "16", "--quiet"]) == 0
    assert "all" in capsys.readouterr().out
    assert any(key.endswith(".tar") for key in asked)
    # Others' archives, without an index.
    del objects["bucket/set/index.parquet"]
    clear_connections()
    assert load_image_folder("s3://bucket/set")["train"]["file_name"][:] == here["train"]["file_name"][:]


def test_tar_files_are_streamed(store, folder, tmp_path):
    objects, _ = store
    images = datasets.DatasetDict({"train": load_unlabelled(str(folder), "error")})
    put_folder(objects, write_shards(images, tmp_path / "packed", 200, 0, 1).folder, "bucket/frames")

    class Plain:
        resize = None

        @staticmethod
        def augment(image):
            return torch.from_numpy(np.array(image))

    orders = []
    for source in ("s3://bucket/frames", str(tmp_path / "packed")):
        files, count = find_stream_files(source)
        assert len(files) > 1 and count == 12
        stream = iter(ImageStream(files, Plain))
        orders.append([int(next(stream)["pixel_values"][0, 0, 0]) // 20 for _ in range(count)])
    assert orders[0] == orders[1] and sorted(orders[0]) == list(range(12))


def test_a_store_that_is_not_there_is_one_sentence(store, monkeypatch, capsys):
    objects, _ = store
    assert main(["prepare", "s3://bucket/nothing"]) == 1
    assert "s3://bucket/nothing holds no .tar or .zip, no parquet and no saved data set." in capsys.readouterr().err
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    clear_connections()
    for call in (lambda: load_image_folder("s3://bucket/set"), lambda: find_stream_files("s3://bucket/set")):
        with pytest.raises(UsageError, match="^s3://bucket/set cannot be reached .Could not connect to the endpoint"):
            call()


def test_a_server_that_lists_nothing_is_read_by_the_index(folder, tmp_path, monkeypatch):
    """As many servers of files are: what is asked for by its name is there, and folders are forbidden."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    packed = write_shards(load_image_folder(folder), tmp_path / "packed", 2_000, 0, 1).folder
    with run_fake_s3(missing_status=403) as (objects, url, _):
        put_folder(objects, packed, "files/set")
        for source in (f"{url}/files/set", f"{url}/files/set/train-00000.tar"):
            found = load_image_folder(source)["train"]
            assert [Reds(found)[n] for n in (0, 11)] == [20 * int(found["file_name"][n][-6:-4]) for n in (0, 11)]
