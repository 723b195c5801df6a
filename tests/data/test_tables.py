"""Tables of images: encodings, labels, images that are listed twice; and sets of `datasets`."""

import json
import math

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as ImageColumn
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hf_mae import load_image_folder
from hf_mae.data.tables import parse_label, read_table
from hf_mae.errors import UsageError


@pytest.fixture
def files(tmp_path):
    """Eight images, each another one."""
    (tmp_path / "files").mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "files" / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("suffix, separator", [(".csv", ","), (".csv", ";"), (".tsv", "\t"), (".jsonl", "")])
def test_encodings_and_separators(files, encoding, suffix, separator):
    names = ["Schleimhaut gerötet", "Polyp"]
    rows = [(f"files/{number}.png", names[number % 2]) for number in range(4)]
    if suffix == ".jsonl":
        text = "\n".join(json.dumps({"file_name": n, "label": c}, ensure_ascii=False) for n, c in rows)
    else:
        text = "\n".join(separator.join(row) for row in [("file_name", "label"), *rows]) + "\n"
    (files / f"manifest{suffix}").write_bytes(text.encode(encoding))
    assert load_image_folder(files)["train"].features["labels"].names == sorted(names)


def test_another_encoding_is_named(files):
    (files / "manifest.csv").write_bytes("file_name,label\nfiles/0.png,Schleimhaut gerötet\n".encode("latin-1"))
    with pytest.raises(UsageError, match="is not in UTF-8: line 2 .*ger.tet.* as Latin-1"):
        load_image_folder(files)


@pytest.mark.parametrize(
    "text, message",
    [
        ("file_name,label\na,b,c\n", "more cells in row 2"),
        ('{"file_name": 1}\n[2]\n', "line that is no object of columns: line 2"),
        ('{"file_name": 1\n', "line that is no JSON"),
        ("[" * 100_000, "line that is no JSON"),
    ],
)
def test_lines_that_cannot_be_understood(tmp_path, text, message):
    path = tmp_path / ("x.jsonl" if text[0] in "{[" else "x.csv")
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_table(path)


NONE = st.sampled_from(
    [None, "", "  ", "nan", "NaN", "None", "null", "<NA>", float("nan"), -1, "-1", -1.0, [1], {}, ["a", "b"]]
)
TEXT = st.text(min_size=1).filter(
    lambda text: text.strip() and text.strip().lower() not in ("nan", "none", "null", "<na>", "nat")
)


@given(NONE)
def test_what_is_no_label_is_refused_with_its_row(value):
    with pytest.raises(UsageError, match="row 7, has (no|the) label"):
        parse_label(value, "row 7,")


@given(st.integers(0, 10**9))
def test_one_and_one_point_zero_are_one_class(number):
    assert {parse_label(value, "") for value in (number, float(number), str(number), f"{number}.0", f" {number} ")} == {
        str(number)
    }


@given(TEXT)
def test_text_is_a_class_as_it_stands(text):
    try:
        assert parse_label(text, "") == text.strip()
    except UsageError:
        assert text.strip() == "-1"
    except AssertionError:
        assert math.isfinite(float(text)) and parse_label(text, "") == text.strip().split(".")[0]


def test_an_image_that_is_listed_twice_is_one_image(files, caplog):
    (files / "link.png").symlink_to(files / "files" / "2.png")
    names = [
        "files/0.png",
        "files/1.png",
        "files/2.png",
        "files/3.png",
        "./files/0.png",
        "files/../files/1.png",
        "link.png",
    ]
    labels = ["a", "b", "a", "b", "a", "b", "a"]
    lines = [f"{name},{label}\n" for name, label in zip(names, labels)]
    (files / "manifest.csv").write_text("file_name,label\n" + "".join(lines))
    assert load_image_folder(files)["train"]["file_name"][:] == names[:4]
    assert "names 3 files twice" in caplog.text


@pytest.mark.parametrize("column, one, other", [("label", "a", "b"), ("split", "train", "test"), ("group", "p1", "p2")])
def test_rows_that_contradict_each_other(files, column, one, other):
    rows = [{"file_name": f"files/{n}.png", "label": "ab"[n % 2], "split": "train", "group": f"g{n}"} for n in range(4)]
    rows += [rows[0] | {column: one}, rows[0] | {"file_name": "./files/0.png", column: other}]
    rows[0] |= {column: one}
    (files / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UsageError, match=rf"names 1 file with two {column}s: files/0.png \({one}, {other}\)"):
        load_image_folder(files)


def saved(files, path, labels, feature=None, places=None, split=None):
    """A set of images as bytes, with their classes; parquet where a split is named."""
    feature = feature or ClassLabel(names=["mucosa", "polyp"])
    places = places or range(len(labels))
    images = [{"bytes": (files / "files" / f"{n}.png").read_bytes(), "path": f"{split or 'x'}_{n}.png"} for n in places]
    found = Dataset.from_dict({"image": images, "label": labels}, Features({"image": ImageColumn(), "label": feature}))
    if split:
        path.mkdir(exist_ok=True)
        found.to_parquet(path / f"{split}.parquet")
    return found


@pytest.mark.parametrize(
    "labels, feature, message",
    [
        ([0, 1, -1, 0], None, "2 images without a label|1 image without a label .row 2 has -1"),
        ([0, None, 1, 0], None, "1 image without a label .row 1 has None"),
        (["a", "b", None, "a"], Value("string"), "row 2, has no label"),
        (["a", "b", "nan", "a"], Value("string"), "row 2, has no label"),
    ],
)
def test_rows_of_a_set_without_a_label(files, labels, feature, message):
    saved(files, files, labels, feature).save_to_disk(files / "saved")
    with pytest.raises(UsageError, match=message):
        load_image_folder(files / "saved")


def test_splits_that_number_their_classes_differently(files):
    names = {"train": ["polyp", "mucosa"], "validation": ["mucosa", "polyp"]}
    parts = {
        split: saved(files, files, [own.index(c) for c in ("polyp", "mucosa", "polyp")], ClassLabel(names=own), places)
        for (split, own), places in zip(names.items(), ((0, 1, 2), (3, 4, 5)))
    }
    DatasetDict(parts).save_to_disk(files / "saved")
    for split in load_image_folder(files / "saved").values():
        assert split.features["labels"].int2str(split["labels"][:]) == ["polyp", "mucosa", "polyp"]


def test_faults_of_images_within_a_table(files):
    saved(files, files / "set", [0, 1, 0, 1], split="train")
    saved(files, files / "set", [0, 1], places=(4, 1), split="validation")
    with pytest.raises(
        UsageError, match="1 image that stands in two splits:\n  train: train_1.png = validation: validation_1.png"
    ):
        load_image_folder(files / "set")
    kept = load_image_folder(files / "set", on_bad_image="skip")
    assert {split: len(part) for split, part in kept.items()} == {"train": 3, "validation": 2}
    (files / "files" / "2.png").write_bytes((files / "files" / "2.png").read_bytes()[:60])
    saved(files, files / "other", [0, 1, 0, 1], split="train")
    with pytest.raises(UsageError, match="1 unreadable image:\n  train_2.png"):
        load_image_folder(files / "other")
