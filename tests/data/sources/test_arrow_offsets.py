"""Images in parquet files and saved datasets are read in place, with the same results as from folders."""

import io

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.fake_s3 import put_folder, use_fake_s3
from support.messages import raises

from hf_mae.cli.main import main
from hf_mae.data.images.image_io import read_rgb
from hf_mae.data.messages import DataMessage
from hf_mae.data.sources.arrow_offsets import locate_embedded_images
from hf_mae.data.sources.kinds import SourceOptions
from hf_mae.data.sources.predict_inputs import find_input_paths, iter_inputs
from hf_mae.data.sources.source import open_source
from hf_mae.data.sources.unlabelled import load_unlabelled

FEATURES = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})


def make_png(red):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (red, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def make_dataset(reds, has_names):
    images = [{"bytes": make_png(red), "path": f"{red % 3}.png" if has_names else None} for red in reds]
    return datasets.Dataset.from_dict({"image": images, "label": [red % 2 for red in reds]}, features=FEATURES)


REDS = {"train": range(8), "test": range(20, 26)}
FORMATS = ["parquet", "parquet with names", "another tool's parquet", "one parquet file", "saved"]


def write_tables(table_format, folder):
    """Writes images of one red each in a table format; returns the path to read."""
    splits = datasets.DatasetDict({split: make_dataset(reds, "names" in table_format) for split, reds in REDS.items()})
    if table_format == "saved":
        splits.save_to_disk(str(folder))
        return folder
    folder.mkdir()
    for split, dataset in splits.items():
        if table_format.startswith("another"):
            table = pa.table(
                {"img": [make_png(red) for red in REDS[split]], "label": ["ab"[red % 2] for red in REDS[split]]}
            )
            pq.write_table(table, folder / f"{split}-0.parquet")
        else:
            dataset.to_parquet(folder / f"{split}-0.parquet")
    return folder / "train-0.parquet" if table_format.startswith("one") else folder


def read_red(image):
    return image.getpixel((0, 0))[0]


def read_reds(dataset):
    return [read_red(read_rgb(row)) for row in dataset.cast_column("image", datasets.Image(decode=False))["image"]]


@pytest.mark.parametrize("table_format", FORMATS)
def test_images_of_all_table_formats_have_unique_names(table_format, tmp_path):
    source = write_tables(table_format, tmp_path / "data")
    expected = [*REDS["train"], *([] if table_format.startswith("one") else REDS["test"])]
    unlabelled = load_unlabelled(str(source), "error", decode=False)
    assert sorted(read_reds(unlabelled)) == expected
    assert len(set(unlabelled["file_name"])) == len(expected)
    inputs = list(iter_inputs(find_input_paths([str(source)], include_videos=True)))
    assert [read_red(read_rgb(image)) for _, image in inputs] == expected
    assert len({name for name, _ in inputs}) == len(expected) and all(
        name.startswith(str(source)) for name, _ in inputs
    )


def test_images_are_located_in_the_arrow_files(tmp_path):
    """With any batches; not after rows were selected."""
    reds = list(range(40))
    make_dataset(reds, True).save_to_disk(str(tmp_path / "saved"), num_shards=3)
    dataset = datasets.load_from_disk(str(tmp_path / "saved"))
    paths = locate_embedded_images(dataset, "image")
    assert [read_red(read_rgb(path)) for path in paths] == reds and all("::" in path for path in paths)
    assert locate_embedded_images(dataset.select([3, 1]), "image") is None
    assert locate_embedded_images(make_dataset(reds, True), "image") is None  # in memory
    images = open_source(str(tmp_path / "saved"), SourceOptions(labelled=False)).samples.data.cast_column(
        "image", datasets.Image(decode=False)
    )
    assert [row["path"] for row in images["image"]] == paths and images[0]["image"]["bytes"] is None


def test_unreadable_images_in_tables_are_listed(tmp_path):
    table = pa.table({"img": [make_png(3), b"none"]})
    pq.write_table(table, tmp_path / "a.parquet")
    for decode in (True, False):
        with raises(DataMessage.UNREADABLE_IMAGES, source=tmp_path / "a.parquet", count=1) as caught:
            load_unlabelled(str(tmp_path / "a.parquet"), "error", decode=decode)
        assert caught.value.attributes["images"].startswith("train/1 (")
    assert load_unlabelled(str(tmp_path), "skip")["file_name"][:] == ["train/0"]
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    with raises(DataMessage.IMAGE_COLUMN_NOT_UNIQUE, images="none", columns=["x"]):
        load_unlabelled(str(tmp_path), "error")


@pytest.mark.run
def test_commands_read_tables_like_folders(finetuned, tiny_pth, toy, tmp_path, capsys):
    """`predict` and `evaluate` have the same results, although the images have no names; `pretrain` uses all images."""
    run, folder = finetuned(), toy / "labelled" / "test"
    loaded = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train")
    encoded = loaded.cast_column("image", datasets.Image(decode=False))
    nameless = [{"bytes": open(row["path"], "rb").read(), "path": None} for row in encoded["image"]]
    features = datasets.Features({"image": datasets.Image(), "label": loaded.features["label"]})
    table = datasets.Dataset.from_dict({"image": nameless, "label": loaded["label"]}, features=features)
    (tmp_path / "data").mkdir()
    table.to_parquet(tmp_path / "data" / "test-0.parquet")
    scores = []
    for source in (tmp_path / "data", folder):
        output = tmp_path / f"{source.name}.csv"
        assert main(["predict", str(run), str(source), "--output", str(output), "--quiet"]) == 0
        scores.append([line.split(",")[1:] for line in output.read_text().splitlines()])
    assert scores[0] == scores[1]
    results = []
    for source in (tmp_path / "data", toy / "labelled"):
        capsys.readouterr()
        assert main(["evaluate", str(run), str(source), "--split", "test", "--quiet"]) == 0
        results.append(capsys.readouterr().out)
    assert results[0] == results[1]
    argv = ["pretrain", str(tmp_path / "data"), "--model_name_or_path", str(tiny_pth)]
    argv += ["--output_dir", str(tmp_path / "pretrained"), "--reconstruction_steps", "0"]
    assert main([*argv, "--max_steps", "1", "--warmup_epochs", "0", "--quiet"]) == 0
    listed = (tmp_path / "pretrained" / "pretraining_images.csv").read_text().splitlines()
    assert len(listed) == 1 + len(nameless) and len({line.split(",")[1] for line in listed}) > len(nameless) // 2


def test_tables_in_s3_are_read(tmp_path, monkeypatch):
    pytest.importorskip("s3fs", reason="s3fs is not installed here")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)  # datasets applies it to all remote files
    with use_fake_s3(monkeypatch) as (objects, _):
        for name in ("parquet", "saved"):
            put_folder(objects, write_tables(name, tmp_path / name), f"tables/{name}")
            images = open_source(f"s3://tables/{name}", SourceOptions(labelled=False)).samples.data
            assert read_reds(images) == [red for reds in REDS.values() for red in reds]
