"""Contract tests of `compat.datasets`."""

import importlib
import inspect

import fsspec
import pytest
from datasets import Dataset, Features, IterableDataset, Value

from hf_mae.compat.datasets import (
    ArrowWriter,
    get_fingerprint,
    get_stream_features,
    has_no_indices_mapping,
    patch_s3fs_streaming,
)


def test_a_fingerprint_changes_with_the_data():
    one, two = Dataset.from_dict({"a": [1, 2]}), Dataset.from_dict({"a": [1, 3]})
    assert get_fingerprint(one) != get_fingerprint(two) != get_fingerprint(two.select([0]))


def test_the_columns_of_a_stream_without_metadata_are_read_from_its_first_row():
    def rows():
        yield {"text": "a", "number": 1}

    stream = IterableDataset.from_generator(rows)
    assert stream.features is None and get_stream_features(stream) == Features(
        {"text": Value("string"), "number": Value("int64")}
    )
    assert list(stream) == list(rows())  # the first row is not consumed
    features = Features({"number": Value("int32")})
    assert get_stream_features(IterableDataset.from_generator(rows, features=features)) == features


def test_selected_and_shuffled_rows_have_an_indices_mapping():
    rows = Dataset.from_dict({"a": [1, 2, 3]})
    assert has_no_indices_mapping(rows) and has_no_indices_mapping(rows.select_columns(["a"]))
    assert not has_no_indices_mapping(rows.select([2, 0])) and not has_no_indices_mapping(rows.shuffle(seed=0))


def test_s3_accepts_the_block_size_of_datasets():
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed here")
    patch_s3fs_streaming()
    opened = fsspec.filesystem("s3", block_size=0, anon=True)
    assert isinstance(opened, s3fs.S3FileSystem) and "block_size" not in opened.kwargs
    assert "block_size=0" in inspect.getsource(
        importlib.import_module("datasets.utils.file_utils")
    )  # otherwise the patch is obsolete


def test_datasets_reads_the_files_of_the_arrow_writer(tmp_path):
    path = str(tmp_path / "x.arrow")
    with ArrowWriter(features=Features({"b": Value("binary")}), path=path, writer_batch_size=2) as writer:
        writer.write_batch({"b": [b"one", b"two", b"three"]})
        count, _ = writer.finalize()
    assert count == 3 and Dataset.from_file(path)["b"][:] == [b"one", b"two", b"three"]
