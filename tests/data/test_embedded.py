"""Images within parquet files and saved data sets: every verb reads them, with or without names and classes, and with
the numbers of the folder."""

import io

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.fake_s3 import put_folder, use_fake_s3

from hf_mae.cli.main import main
from hf_mae.data.arrow_offsets import locate_embedded_images
from hf_mae.data.hf_datasets import load_images
from hf_mae.data.image_io import open_image, read_rgb
from hf_mae.data.predict_inputs import find_input_paths, iter_inputs
from hf_mae.data.unlabelled import load_unlabelled
from hf_mae.errors import UsageError

FEATURES = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})


def png(red):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (red, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def rows(reds, named):
    images = [{"bytes": png(red), "path": f"{red % 3}.png" if named else None} for red in reds]
    return datasets.Dataset.from_dict({"image": images, "label": [red % 2 for red in reds]}, features=FEATURES)


REDS = {"train": range(8), "test": range(20, 26)}
WAYS = ["parquet", "parquet with names", "another tool's parquet", "one parquet file", "saved"]


def written(way, folder):
    """The place of images of one red each, in one of the ways in which images are kept in tables."""
    splits = datasets.DatasetDict({split: rows(reds, "names" in way) for split, reds in REDS.items()})
    if way == "saved":
        splits.save_to_disk(str(folder))
        return folder
    folder.mkdir()
    for split, dataset in splits.items():
        if way.startswith("another"):
            table = pa.table(
                {"img": [png(red) for red in REDS[split]], "label": ["ab"[red % 2] for red in REDS[split]]}
            )
            pq.write_table(table, folder / f"{split}-0.parquet")
        else:
            dataset.to_parquet(folder / f"{split}-0.parquet")
    return folder / "train-0.parquet" if way.startswith("one") else folder


def red(image):
    return image.getpixel((0, 0))[0]


def reds_of(dataset):
    return [red(read_rgb(row)) for row in dataset.cast_column("image", datasets.Image(decode=False))["image"]]


@pytest.mark.parametrize("way", WAYS)
def test_images_are_found_and_told_apart_in_every_table(way, tmp_path):
    source = written(way, tmp_path / "data")
    wanted = [*REDS["train"], *([] if way.startswith("one") else REDS["test"])]
    unlabelled = load_unlabelled(str(source), "error", decode=False)
    assert sorted(reds_of(unlabelled)) == wanted
    assert len(set(unlabelled["file_name"])) == len(wanted)
    found = list(iter_inputs(find_input_paths([str(source)], include_videos=True), 1.0, set()))
    assert [red(opener()) for _, opener in found] == wanted
    assert len({name for name, _ in found}) == len(wanted) and all(name.startswith(str(source)) for name, _ in found)
    done = {name for name, _ in found[:5]}
    assert [red(opener()) for _, opener in iter_inputs([str(source)], 1.0, done)] == wanted[5:]


def test_they_are_read_where_they_lie(tmp_path):
    """In the Arrow file of the data set, whatever its batches; of rows that were selected nobody knows where."""
    reds = list(range(40))
    rows(reds, True).save_to_disk(str(tmp_path / "saved"), num_shards=3)
    dataset = datasets.load_from_disk(str(tmp_path / "saved"))
    places = locate_embedded_images(dataset, "image")
    assert [red(open_image(place)) for place in places] == reds and all("::" in place for place in places)
    assert locate_embedded_images(dataset.select([3, 1]), "image") is None
    assert locate_embedded_images(rows(reds, True), "image") is None  # in memory
    within = load_images(str(tmp_path / "saved"))["train"].cast_column("image", datasets.Image(decode=False))
    assert [row["path"] for row in within["image"]] == places and within[0]["image"]["bytes"] is None


def test_what_cannot_be_read_is_named(tmp_path):
    table = pa.table({"img": [png(3), b"none"]})
    pq.write_table(table, tmp_path / "a.parquet")
    for decode in (True, False):
        with pytest.raises(UsageError, match="(?s)1 image of .*a.parquet cannot be read.*train/1 .it is no image"):
            load_unlabelled(str(tmp_path / "a.parquet"), "error", decode=decode)
    assert load_unlabelled(str(tmp_path), "skip")["file_name"][:] == ["train/0"]
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="needs one image column; it has none among x"):
        load_unlabelled(str(tmp_path), "error")


@pytest.mark.run
def test_the_verbs_read_them(finetuned, tiny_pth, toy, tmp_path, capsys):
    """`predict` and `evaluate` as of the folder, though the images have no names; `pretrain`, too, looks at all."""
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


def test_tables_in_a_store(tmp_path, monkeypatch):
    pytest.importorskip("s3fs", reason="s3fs is not installed here")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)  # which it takes for any store, not the Hub alone
    with use_fake_s3(monkeypatch) as (objects, _):
        for way in ("parquet", "saved"):
            put_folder(objects, written(way, tmp_path / way), f"tables/{way}")
            splits = load_images(f"s3://tables/{way}")
            found = {split: reds_of(part) for split, part in splits.items()}
            assert found == {split: list(reds) for split, reds in REDS.items()}
