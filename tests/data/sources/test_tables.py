"""Tables of images: encodings, labels and repeated images; datasets saved by `datasets`."""

import json
import math

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as ImageColumn
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.messages import logged, raises

from hf_mae import load_image_folder
from hf_mae.data.messages import DataMessage
from hf_mae.data.sources.tables import parse_label, read_table
from hf_mae.errors import UsageError
from hf_mae.files.messages import FileMessage


@pytest.fixture
def files(tmp_path):
    """A folder with eight different images."""
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


def test_other_encodings_are_reported(files):
    (files / "manifest.csv").write_bytes("file_name,label\nfiles/0.png,Schleimhaut gerötet\n".encode("latin-1"))
    with raises(FileMessage.NOT_UTF8, line=2):
        load_image_folder(files)


@pytest.mark.parametrize(
    "text, message, line",
    [
        ("file_name,label\na,b,c\n", DataMessage.TOO_MANY_CELLS, 2),
        ('{"file_name": 1}\n[2]\n', DataMessage.LINE_NOT_OBJECT, 2),
        ('{"file_name": 1\n', DataMessage.LINE_NOT_JSON, 1),
        ("[" * 100_000, DataMessage.LINE_NOT_JSON, 1),
    ],
    ids=["too many cells", "not an object", "unterminated", "nested too deeply"],
)
def test_invalid_lines_are_reported(tmp_path, text, message, line):
    path = tmp_path / ("x.jsonl" if text[0] in "{[" else "x.csv")
    path.write_text(text)
    with raises(message, line=line):
        read_table(path)


MISSING = st.sampled_from(
    [None, "", "  ", "nan", "NaN", "None", "null", "<NA>", float("nan"), -1, "-1", -1.0, [1], {}, ["a", "b"]]
)
TEXT = st.text(min_size=1).filter(
    lambda text: text.strip() and text.strip().lower() not in ("nan", "none", "null", "<na>", "nat")
)


@given(MISSING)
def test_missing_labels_are_reported_with_their_row(value):
    with pytest.raises(UsageError) as caught:
        parse_label(value, "row 7")
    is_container = isinstance(value, (list, dict))
    assert caught.value.code is (DataMessage.LABEL_NOT_SINGLE if is_container else DataMessage.LABEL_MISSING)
    assert caught.value.attributes["location"] == "row 7"


@given(st.integers(0, 10**9))
def test_1_and_1_0_are_one_class(number):
    assert {parse_label(value, "") for value in (number, float(number), str(number), f"{number}.0", f" {number} ")} == {
        str(number)
    }


@given(TEXT)
def test_text_labels_are_not_changed(text):
    try:
        assert parse_label(text, "") == text.strip()
    except UsageError:
        assert text.strip() == "-1"
    except AssertionError:
        assert math.isfinite(float(text)) and parse_label(text, "") == text.strip().split(".")[0]


def test_an_image_in_several_rows_is_one_image(files, caplog):
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
    assert logged(caplog.records, DataMessage.MANIFEST_FILES_REPEATED, count=3)


@pytest.mark.parametrize("column, one, other", [("label", "a", "b"), ("split", "train", "test"), ("group", "p1", "p2")])
def test_contradictory_rows_are_reported(files, column, one, other):
    rows = [{"file_name": f"files/{n}.png", "label": "ab"[n % 2], "split": "train", "group": f"g{n}"} for n in range(4)]
    rows += [rows[0] | {column: one}, rows[0] | {"file_name": "./files/0.png", column: other}]
    rows[0] |= {column: one}
    (files / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = f"files/0.png ({one}, {other})"
    with raises(DataMessage.MANIFEST_CONTRADICTORY, count=1, column=f"{column}s", names=names):
        load_image_folder(files)


def make_dataset(files, path, labels, feature=None, numbers=None, split=None):
    """A dataset of images as bytes, with their classes; written as parquet if a split is given."""
    feature = feature or ClassLabel(names=["mucosa", "polyp"])
    numbers = numbers or range(len(labels))
    images = [
        {"bytes": (files / "files" / f"{n}.png").read_bytes(), "path": f"{split or 'x'}_{n}.png"} for n in numbers
    ]
    dataset = Dataset.from_dict(
        {"image": images, "label": labels}, Features({"image": ImageColumn(), "label": feature})
    )
    if split:
        path.mkdir(exist_ok=True)
        dataset.to_parquet(path / f"{split}.parquet")
    return dataset


@pytest.mark.parametrize(
    "labels, row, value",
    [([0, 1, -1, 0], 2, -1), ([0, None, 1, 0], 1, None)],
)
def test_class_ids_that_are_missing_are_reported(files, labels, row, value):
    make_dataset(files, files, labels).save_to_disk(files / "saved")
    with raises(DataMessage.ROWS_WITHOUT_LABEL, count=1, row=row, value=value):
        load_image_folder(files / "saved")


@pytest.mark.parametrize("value", [None, "nan"])
def test_text_labels_that_are_missing_are_reported(files, value):
    make_dataset(files, files, ["a", "b", value, "a"], Value("string")).save_to_disk(files / "saved")
    with raises(DataMessage.LABEL_MISSING, location=f"{files / 'saved'}, train, row 2, label", value=value):
        load_image_folder(files / "saved")


def test_splits_may_have_different_class_ids(files):
    names = {"train": ["polyp", "mucosa"], "validation": ["mucosa", "polyp"]}
    parts = {
        split: make_dataset(
            files, files, [classes.index(c) for c in ("polyp", "mucosa", "polyp")], ClassLabel(names=classes), numbers
        )
        for (split, classes), numbers in zip(names.items(), ((0, 1, 2), (3, 4, 5)))
    }
    DatasetDict(parts).save_to_disk(files / "saved")
    for split in load_image_folder(files / "saved").values():
        assert split.features["labels"].int2str(split["labels"][:]) == ["polyp", "mucosa", "polyp"]


def test_invalid_images_in_tables_are_reported(files):
    make_dataset(files, files / "set", [0, 1, 0, 1], split="train")
    make_dataset(files, files / "set", [0, 1], numbers=(4, 1), split="validation")
    problems = "1 image in two splits:\n  train: train_1.png = validation: validation_1.png"
    with raises(DataMessage.INVALID_IMAGES, problems=problems):
        load_image_folder(files / "set")
    splits = load_image_folder(files / "set", on_bad_image="skip")
    assert {split: len(part) for split, part in splits.items()} == {"train": 3, "validation": 2}
    (files / "files" / "2.png").write_bytes((files / "files" / "2.png").read_bytes()[:60])
    make_dataset(files, files / "other", [0, 1, 0, 1], split="train")
    with raises(DataMessage.INVALID_IMAGES) as caught:
        load_image_folder(files / "other")
    assert caught.value.attributes["problems"].startswith("1 unreadable image:\n  train_2.png (")
