"""Real variants of all formats: the pixels are those of a second decoder, and the same on all code paths."""

import pickle
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import DatasetDict
from support.image_formats import VARIANTS

from hf_mae.data import load_image_folder
from hf_mae.data.images.image_io import read_rgb
from hf_mae.data.images.torch_datasets import CachedPixelReader, PixelReader
from hf_mae.data.sources.predict_inputs import iter_inputs, iter_pixel_values
from hf_mae.data.sources.shard_writer import write_shards
from hf_mae.sharing.image_reader import write_image_reader
from hf_mae.sharing.space.app import DemoModel


@pytest.mark.parametrize("name", VARIANTS)
def test_pixels_are_those_of_a_second_decoder(tmp_path, name):
    content, expected, tolerance = VARIANTS[name](tmp_path / "x")
    expected = np.stack([expected] * 3, -1) if expected.ndim == 2 else expected
    pixels = np.asarray(read_rgb(content))
    assert pixels.shape == expected.shape and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - expected).max() <= tolerance


SUFFIXES = {"jpeg 2000": "jp2", "jpeg": "jpg", "tiff": "tif", "dicom": "dcm", "metaimage": "mha"}  # others: the name


class Unchanged:
    """A resize that does nothing."""

    def __call__(self, image):
        return image

    def __repr__(self):
        return "Unchanged()"


def suffix(name):
    """The suffix of the files of a variant."""
    return next((value for prefix, value in SUFFIXES.items() if name.startswith(prefix)), name.split()[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Class folders of all variants, all with different pixels (the tests of splits do not accept equal images)."""
    root = tmp_path_factory.mktemp("variants") / "data"
    seen = set()
    for number, name in enumerate(VARIANTS):
        path = root / f"class{number % 2}" / f"{number:03d}.{suffix(name)}"
        path.parent.mkdir(parents=True, exist_ok=True)
        content, _, _ = VARIANTS[name](path)
        path.write_bytes(content)
        seen.add(suffix(name))
    assert len(VARIANTS) > 150 and len(seen) > 10
    return root


@pytest.fixture(scope="module")
def expected(folder):
    """The pixels of each file, by its name."""
    files = sorted(folder.rglob("*.*"))
    return {file.relative_to(folder).as_posix(): np.asarray(read_rgb(file)) for file in files}


def assert_equal(pixels, expected):
    """The same pixels for each file."""
    assert sorted(pixels) == sorted(expected)
    different = [name for name in expected if not np.array_equal(np.asarray(pixels[name]), expected[name])]
    assert not different


def read_dataset(dataset, make_reader):
    reader = make_reader(dataset)
    return {name: reader[index] for index, name in enumerate(dataset["file_name"][:])}


@pytest.mark.parametrize("source", ["folder", "zip", "tar", "shards", "parquet"])
def test_training_and_evaluation_read_the_same_pixels_from_every_source(folder, expected, tmp_path, source):
    dataset = load_image_folder(str(folder))["train"]
    if source in ("zip", "tar"):
        dataset = load_image_folder(shutil.make_archive(str(tmp_path / "data"), source, folder))["train"]
    elif source == "shards":
        write_shards(DatasetDict(train=dataset), tmp_path / "shards", 100_000, 0, 1)
        dataset = load_image_folder(str(tmp_path / "shards"))["train"]
    elif source == "parquet":
        rows = {"label": [], "file_name": [], "image": []}
        for name in expected:
            rows["label"].append(name.split("/")[0])
            rows["file_name"].append(name)
            rows["image"].append({"bytes": (folder / name).read_bytes(), "path": None})
        image_type = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        table = pa.table(rows | {"image": pa.array(rows["image"], image_type)})
        pq.write_table(table, tmp_path / "data.parquet")
        dataset = load_image_folder(str(tmp_path / "data.parquet"))["train"]
    assert_equal(read_dataset(dataset, lambda part: PixelReader(part, None)), expected)
    assert_equal(read_dataset(dataset, lambda part: CachedPixelReader(part, Unchanged(), 1)), expected)


def test_predict_reads_the_same_pixels(folder, expected):
    def unchanged(image, return_tensors):
        return {"pixel_values": [np.asarray(image)]}

    paths = [str(folder / name) for name in expected]
    rows = dict(iter_pixel_values(iter_inputs(paths), unchanged, 1.0, 2))
    assert_equal({name: rows[str(folder / name)] for name in expected}, expected)


def test_the_demo_reads_the_same_pixels(folder, expected):
    model = DemoModel.__new__(DemoModel)
    assert_equal({name: model.read(str(folder / name)) for name in expected}, expected)


def test_exported_programs_read_the_same_pixels_without_hf_mae(folder, expected, tmp_path):
    """The reader of the ONNX example and of Spaces."""
    write_image_reader(tmp_path)
    code = """
import sys, pickle
sys.modules["hf_mae"] = None
from image_reader.data.images.decoding import open_frames
import numpy as np
pixels = {}
for path in sys.argv[2:]:
    with open_frames(path) as frames:
        pixels[path] = np.asarray(frames.read())
pickle.dump(pixels, open(sys.argv[1], "wb"))
"""
    paths = [str(folder / name) for name in expected]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "pixels"), *paths], check=True, cwd=tmp_path)
    pixels = pickle.loads((tmp_path / "pixels").read_bytes())
    assert_equal({name: pixels[str(folder / name)] for name in expected}, expected)
