"""A remote archive that changes after its members were listed: parts of two versions are never joined."""

import io
import tarfile

import datasets
import pytest
from PIL import Image
from support.fake_s3 import use_fake_s3
from support.file_server import run_file_server
from support.messages import raises

from hf_mae.data.images.image_io import read_rgb
from hf_mae.data.sources.split_loading import load_image_folder
from hf_mae.files.messages import FileMessage

EARLIER, LATER = "Mon, 05 Jan 2015 10:00:00 GMT", "Mon, 05 Jan 2015 10:00:01 GMT"
STATED = [('"1"', None), (None, EARLIER), ('W/"1"', EARLIER), ('W/"1"', None), (None, None)]  # ETag, Last-Modified


def pack(red, count=12):
    """Packs images of two classes into a tar file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for number in range(count):
            image = io.BytesIO()
            Image.new("RGB", (16, 16), (red, number, 0)).save(image, "PNG")
            info = tarfile.TarInfo(f"{'ab'[number % 2]}/{number:02d}.png")
            info.size = image.tell()
            image.seek(0)
            tar.addfile(info, image)
    return packed.getvalue()


def read_all(url):
    """Lists the images, and returns a function that reads the red value of each one."""
    images = load_image_folder(url)["train"].cast_column("image", datasets.Image(decode=False))
    paths = [row["path"] for row in images["image"]]
    return lambda: {read_rgb(path).getpixel((0, 0))[0] for path in paths}


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("hf_mae.files.caches.cache_folder", lambda: tmp_path)
    with run_file_server(pack(10), monkeypatch) as server:
        yield server


@pytest.mark.parametrize("ignores_if_range", [False, True])
@pytest.mark.parametrize("etag, modified", STATED)
def test_a_changed_archive_is_one_error(server, etag, modified, ignores_if_range):
    server.etag, server.modified, server.ignores_if_range = etag, modified, ignores_if_range
    read = read_all(f"{server.url}/set.tar")
    assert read() == {10}
    server.content = pack(200, 40)  # of another size
    server.etag, server.modified = etag and etag.replace("1", "2"), modified and LATER
    with raises(FileMessage.REMOTE_FILE_CHANGED, url=f"{server.url}/set.tar"):
        read()
    assert read_all(f"{server.url}/set.tar")() == {200}  # the next command reads the new archive


def test_a_server_without_ranges_is_one_error(server):
    server.supports_ranges = False
    with raises(FileMessage.RANGES_IGNORED, url=f"{server.url}/set.tar"):
        read_all(f"{server.url}/set.tar")


def test_a_changed_object_in_s3_is_one_error(monkeypatch, tmp_path):
    pytest.importorskip("s3fs", reason="s3fs is not installed here")
    monkeypatch.setattr("hf_mae.files.caches.cache_folder", lambda: tmp_path)
    with use_fake_s3(monkeypatch) as (objects, _):
        objects["bucket/set.tar"] = pack(10)
        read = read_all("s3://bucket/set.tar")
        assert read() == {10}
        objects["bucket/set.tar"] = pack(200)
        with raises(FileMessage.REMOTE_FILE_CHANGED):
            read()
