"""Layouts of labelled datasets, and the checks of their files before training."""

import json
import logging
import shutil
import zlib

import numpy as np
import pytest
from datasets import ClassLabel, Dataset
from PIL import Image
from support.messages import logged, raises

from hf_mae import load_image_folder
from hf_mae.data.messages import DataMessage
from hf_mae.data.splits import stratified_mask


def write_image(path, size=(20, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(zlib.crc32(str(path).encode()))
    Image.fromarray(generator.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def tree(tmp_path):
    for split, names in {"train": ("b_polyp", "a_cecum"), "val": ("b_polyp",), "test": ("b_polyp", "c_zline")}.items():
        for name in names:
            for number in range(3):
                write_image(tmp_path / split / name / f"{number}.png")
    return tmp_path


def test_class_ids_are_sorted_names_over_all_splits(tree, caplog):
    with caplog.at_level(logging.WARNING):
        splits = load_image_folder(tree, on_missing_class="keep")
    assert list(splits) == ["train", "validation", "test"]
    for split in splits.values():
        assert split.features["labels"] == ClassLabel(names=["a_cecum", "b_polyp", "c_zline"])
    assert set(splits["validation"]["labels"]) == {1} and set(splits["test"]["labels"]) == {1, 2}
    attributes = {"split": "validation", "names": ["a_cecum", "c_zline"]}
    assert logged(caplog.records, DataMessage.CLASSES_WITHOUT_IMAGES, **attributes)
    row = splits["test"][0]
    assert row["file_name"] == "test/b_polyp/0.png" and row["image"].size == (20, 16)


def test_the_class_order_of_the_checkpoint_is_used(tree):
    splits = load_image_folder(tree, label_names=["c_zline", "b_polyp", "a_cecum", "d_other"])
    assert set(splits["test"]["labels"]) == {1, 0}
    with raises(DataMessage.CLASSES_NOT_IN_CHECKPOINT, source=tree, unknown=["c_zline"]):
        load_image_folder(tree, label_names=["a_cecum", "b_polyp"])


def test_the_class_in_nested_trees_is_the_folder_of_the_image(tmp_path):
    write_image(tmp_path / "lower-gi-tract" / "anatomical-landmarks" / "cecum" / "1.jpg")
    write_image(tmp_path / "upper-gi-tract" / "pylorus" / "2.JPG")
    splits = load_image_folder(tmp_path)
    assert list(splits) == ["train"] and splits["train"].features["labels"].names == ["cecum", "pylorus"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_manifests(tmp_path, suffix):
    rows = [("a/1.png", "polyp", "train"), ("a/2.png", "cecum", "train"), ("a/3.png", "polyp", "validation")]
    for name, _, _ in rows:
        write_image(tmp_path / name)
    manifest = tmp_path / f"labels.{suffix}"
    if suffix == "csv":
        manifest.write_text("file_name,label,split\n" + "".join(f"{n},{c},{s}\n" for n, c, s in rows))
    else:
        lines = (json.dumps({"file_name": n, "label": c, "split": s}) for n, c, s in rows)
        manifest.write_text("\n".join(lines))
    with raises(DataMessage.CLASSES_IN_ONE_SPLIT, classes="cecum in train"):
        load_image_folder(manifest)
    options = {"on_missing_class": "keep"}
    for splits in (load_image_folder(manifest, **options), load_image_folder(tmp_path, manifest=manifest, **options)):
        assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 2, "validation": 1}
        assert splits["validation"].features["labels"].int2str(splits["validation"][0]["labels"]) == "polyp"
    manifest.rename(tmp_path / f"manifest.{suffix}")
    assert len(load_image_folder(tmp_path, **options)["train"]) == 2


@pytest.mark.parametrize(
    "text, message, attributes",
    [
        ("file_name,class\na/1.png,x\n", DataMessage.COLUMNS_MISSING, {"columns": ["label"]}),
        (
            "file_name,label\na/absent.png,x\na/gone.png,y\n",
            DataMessage.MANIFEST_FILES_NOT_FOUND,
            {"count": 2, "names": "a/absent.png, a/gone.png"},
        ),
        ("file_name,label,split\na/1.png,x,somewhere\n", DataMessage.UNKNOWN_SPLIT_NAMES, {"unknown": ["somewhere"]}),
        (
            "file_name,label\na/1.png,x\na/1.png,y\n",
            DataMessage.MANIFEST_CONTRADICTORY,
            {"column": "labels", "names": "a/1.png (x, y)"},
        ),
        ("file_name,label\na/1.png,\n", DataMessage.LABEL_MISSING, {}),
        ("", DataMessage.TABLE_EMPTY, {}),
    ],
)
def test_invalid_manifests_are_rejected(tmp_path, text, message, attributes):
    write_image(tmp_path / "a" / "1.png")
    (tmp_path / "m.csv").write_text(text)
    with raises(message, **attributes):
        load_image_folder(tmp_path, manifest=tmp_path / "m.csv")


def test_parquet_and_saved_datasets(tree, tmp_path):
    train = load_image_folder(tree, on_missing_class="keep")["train"]
    images = Dataset.from_dict({"image": train["image"], "label": train["labels"]})
    images = images.cast_column("label", ClassLabel(names=train.features["labels"].names))
    (tmp_path / "parquet").mkdir()
    images.to_parquet(tmp_path / "parquet" / "train-00000.parquet")
    images.save_to_disk(tmp_path / "saved")
    for folder in ("parquet", "saved"):
        loaded = load_image_folder(tmp_path / folder, val_fraction=0.34)
        assert loaded["train"].column_names == ["image", "labels", "file_name"]
        assert len(loaded["train"]) == 4 and len(loaded["validation"]) == 2
        assert loaded["train"].features["labels"].names == ["a_cecum", "b_polyp", "c_zline"]


def test_all_invalid_images_are_listed_at_once(tree):
    bad = tree / "train" / "a_cecum" / "broken.jpg"
    bad.write_bytes(b"not an image")
    truncated = write_image(tree / "train" / "a_cecum" / "truncated.jpg", size=(200, 200))
    truncated.write_bytes(truncated.read_bytes()[:-500])
    shutil.copy(tree / "train" / "b_polyp" / "0.png", tree / "test" / "b_polyp" / "copy.png")
    (tree / "train" / "d_empty").mkdir()
    with raises(DataMessage.INVALID_IMAGES) as caught:
        load_image_folder(tree)
    problems = caught.value.attributes["problems"]
    assert "2 unreadable images" in problems and "broken.jpg" in problems and "truncated.jpg (" in problems
    assert "train: train/b_polyp/0.png = test: test/b_polyp/copy.png" in problems
    assert "1 class folder without images:\n  train/d_empty" in problems


def test_skip_excludes_invalid_images_and_keeps_the_test_split_complete(tree, caplog):
    (tree / "train" / "a_cecum" / "broken.jpg").write_bytes(b"not an image")
    shutil.copy(tree / "train" / "b_polyp" / "0.png", tree / "test" / "b_polyp" / "copy.png")
    with caplog.at_level(logging.WARNING):
        splits = load_image_folder(tree, on_bad_image="skip", on_missing_class="keep")
    assert "train/b_polyp/0.png" not in splits["train"]["file_name"]
    assert "test/b_polyp/copy.png" in splits["test"]["file_name"]
    assert len(splits["train"]) == 5 and "broken.jpg" in caplog.text
    assert logged(caplog.records, DataMessage.INVALID_IMAGES_EXCLUDED)


def test_a_repaired_image_is_checked_again(tmp_path):
    write_image(tmp_path / "x" / "1.png"), write_image(tmp_path / "y" / "1.png")
    (tmp_path / "x" / "2.png").write_bytes(b"broken")
    with raises(DataMessage.INVALID_IMAGES) as caught:
        load_image_folder(tmp_path)
    assert "2.png (" in caught.value.attributes["problems"]
    write_image(tmp_path / "x" / "2.png")
    assert len(load_image_folder(tmp_path)["train"]) == 3


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda root: None, DataMessage.FOLDER_WITHOUT_CLASSES),
        (lambda root: write_image(root / "1.png"), DataMessage.IMAGES_OUTSIDE_CLASS_FOLDERS),
        (
            lambda root: (write_image(root / "train" / "a" / "1.png"), write_image(root / "other" / "1.png")),
            DataMessage.SPLITS_INCOMPLETE,
        ),
        (lambda root: write_image(root / "train" / "1.png"), DataMessage.IMAGES_OUTSIDE_CLASS_FOLDERS),
    ],
)
def test_folders_without_classes_are_rejected(tmp_path, make, message):
    make(tmp_path)
    with raises(message):
        load_image_folder(tmp_path)


def test_a_missing_folder_is_reported(tmp_path):
    with raises(DataMessage.NOT_A_DATA_SOURCE, source=tmp_path / "absent"):
        load_image_folder(tmp_path / "absent")


def test_val_fraction_is_stratified_and_seeded(toy):
    folder = toy / "labelled" / "train"
    first, again = (load_image_folder(folder, val_fraction=0.2, seed=1) for _ in range(2))
    other = load_image_folder(folder, val_fraction=0.2, seed=2)
    assert first["validation"]["file_name"] == again["validation"]["file_name"]
    assert first["validation"]["file_name"] != other["validation"]["file_name"]
    assert np.bincount(first["validation"]["labels"]).tolist() == [4, 4, 4]
    assert not set(first["validation"]["file_name"]) & set(first["train"]["file_name"])
    with raises(DataMessage.VALIDATION_SPLIT_EXISTS, val_fraction="0.2"):
        load_image_folder(toy / "labelled", val_fraction=0.2)


def test_training_fractions_are_nested_and_contain_each_class(toy):
    from hf_mae.data import load_splits
    from hf_mae.settings.data import DataSourceArguments

    def training_names(fraction, seed=0):
        source = DataSourceArguments(data_dir=str(toy / "labelled"), train_fraction=fraction)
        splits = load_splits(source, seed)
        assert len(splits["validation"]) == 18 and len(set(splits["train"]["labels"][:])) == 3
        return set(splits["train"]["file_name"][:])

    subsets = [training_names(fraction) for fraction in (0.01, 0.1, 0.5, 1.0)]
    assert subsets[0] < subsets[1] < subsets[2] < subsets[3]
    assert [len(names) for names in subsets] == [3, 6, 30, 60]
    assert subsets[1] != training_names(0.1, seed=1)


def test_small_classes_keep_an_image_in_both_parts():
    labels = ["a"] * 2 + ["b"] + ["c"] * 100
    mask = stratified_mask(labels, 0.1, seed=0)
    assert mask[:2].sum() == 1 and not mask[2] and mask[3:].sum() == 10
