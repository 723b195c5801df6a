"""Every usual layout of a data set is read alike, and its faults are found before training, all of them."""

import json
import logging
import shutil

import numpy as np
import pytest
from datasets import ClassLabel, Dataset
from PIL import Image

from hf_mae import load_image_folder
from hf_mae.data.splitting import stratified_mask
from hf_mae.errors import UsageError


def picture(path, seed=None, size=(20, 16), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = abs(hash(str(path))) % 2**32 if seed is None else seed
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.fixture
def tree(tmp_path):
    for split, names in {"train": ("b_polyp", "a_cecum"), "val": ("b_polyp",), "test": ("b_polyp", "c_zline")}.items():
        for name in names:
            for number in range(3):
                picture(tmp_path / split / name / f"{number}.png")
    return tmp_path


def test_class_ids_are_sorted_names_over_all_splits(tree, caplog):
    with caplog.at_level(logging.WARNING):
        splits = load_image_folder(tree, on_missing_class="keep")
    assert list(splits) == ["train", "validation", "test"]
    for split in splits.values():
        assert split.features["labels"] == ClassLabel(names=["a_cecum", "b_polyp", "c_zline"])
    assert set(splits["validation"]["labels"]) == {1} and set(splits["test"]["labels"]) == {1, 2}
    assert "validation split has no image of: a_cecum, c_zline" in caplog.text
    row = splits["test"][0]
    assert row["file_name"] == "test/b_polyp/0.png" and row["image"].size == (20, 16)


def test_the_checkpoints_own_order_is_kept(tree):
    splits = load_image_folder(tree, label_names=["c_zline", "b_polyp", "a_cecum", "d_other"])
    assert set(splits["test"]["labels"]) == {1, 0}
    with pytest.raises(UsageError, match="checkpoint does not know: c_zline"):
        load_image_folder(tree, label_names=["a_cecum", "b_polyp"])


def test_nested_trees_take_the_images_own_folder(tmp_path):
    picture(tmp_path / "lower-gi-tract" / "anatomical-landmarks" / "cecum" / "1.jpg")
    picture(tmp_path / "upper-gi-tract" / "pylorus" / "2.JPG")
    splits = load_image_folder(tmp_path)
    assert list(splits) == ["train"] and splits["train"].features["labels"].names == ["cecum", "pylorus"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_manifests(tmp_path, suffix):
    rows = [("a/1.png", "polyp", "train"), ("a/2.png", "cecum", "train"), ("a/3.png", "polyp", "validation")]
    for name, _, _ in rows:
        picture(tmp_path / name)
    manifest = tmp_path / f"labels.{suffix}"
    if suffix == "csv":
        manifest.write_text("file_name,label,split\n" + "".join(f"{n},{c},{s}\n" for n, c, s in rows))
    else:
        lines = (json.dumps({"file_name": n, "label": c, "split": s}) for n, c, s in rows)
        manifest.write_text("\n".join(lines))
    with pytest.raises(UsageError, match="classes in one split only: cecum in train alone"):
        load_image_folder(manifest)
    options = {"on_missing_class": "keep"}
    for splits in (load_image_folder(manifest, **options), load_image_folder(tmp_path, manifest=manifest, **options)):
        assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 2, "validation": 1}
        assert splits["validation"].features["labels"].int2str(splits["validation"][0]["labels"]) == "polyp"
    manifest.rename(tmp_path / f"manifest.{suffix}")
    assert len(load_image_folder(tmp_path, **options)["train"]) == 2


@pytest.mark.parametrize(
    "text, message",
    [
        ("file_name,class\na/1.png,x\n", "lacks the column label"),
        ("file_name,label\na/absent.png,x\na/gone.png,y\n", "2 files that do not exist: a/absent.png, a/gone.png"),
        ("file_name,label,split\na/1.png,x,somewhere\n", "splits of unknown names.*somewhere"),
        ("file_name,label\na/1.png,x\na/1.png,y\n", r"two labels: a/1.png \(x, y\)"),
        ("file_name,label\na/1.png,\n", "row 1, has no label"),
        ("", "has no rows"),
    ],
)
def test_faulty_manifests(tmp_path, text, message):
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_image_folder(tmp_path, manifest=tmp_path / "m.csv")


def test_parquet_and_saved_data_sets(tree, tmp_path):
    reference = load_image_folder(tree, on_missing_class="keep")["train"]
    images = Dataset.from_dict({"image": reference["image"], "label": reference["labels"]})
    images = images.cast_column("label", ClassLabel(names=reference.features["labels"].names))
    (tmp_path / "parquet").mkdir()
    images.to_parquet(tmp_path / "parquet" / "train-00000.parquet")
    images.save_to_disk(tmp_path / "saved")
    for folder in ("parquet", "saved"):
        loaded = load_image_folder(tmp_path / folder, val_fraction=0.34)
        assert loaded["train"].column_names == ["image", "labels", "file_name"]
        assert len(loaded["train"]) == 4 and len(loaded["validation"]) == 2
        assert loaded["train"].features["labels"].names == ["a_cecum", "b_polyp", "c_zline"]


def test_all_faults_are_listed_at_once(tree):
    bad = tree / "train" / "a_cecum" / "broken.jpg"
    bad.write_bytes(b"not an image")
    whole = picture(tree / "train" / "a_cecum" / "cut.jpg", size=(200, 200))
    whole.write_bytes(whole.read_bytes()[:-500])
    shutil.copy(tree / "train" / "b_polyp" / "0.png", tree / "test" / "b_polyp" / "copy.png")
    (tree / "train" / "d_empty").mkdir()
    with pytest.raises(UsageError) as caught:
        load_image_folder(tree)
    text = str(caught.value)
    assert "2 unreadable images" in text and "broken.jpg" in text and "cut.jpg" in text and "truncated" in text
    assert "train: train/b_polyp/0.png = test: test/b_polyp/copy.png" in text
    assert "train/d_empty" in text and "--on_bad_image skip" in text


def test_skip_leaves_them_out_and_keeps_the_evaluation_clean(tree, caplog):
    (tree / "train" / "a_cecum" / "broken.jpg").write_bytes(b"not an image")
    shutil.copy(tree / "train" / "b_polyp" / "0.png", tree / "test" / "b_polyp" / "copy.png")
    with caplog.at_level(logging.WARNING):
        splits = load_image_folder(tree, on_bad_image="skip", on_missing_class="keep")
    assert "train/b_polyp/0.png" not in splits["train"]["file_name"]
    assert "test/b_polyp/copy.png" in splits["test"]["file_name"]
    assert len(splits["train"]) == 5 and "broken.jpg" in caplog.text


def test_a_repaired_image_is_looked_at_again(tmp_path):
    picture(tmp_path / "x" / "1.png"), picture(tmp_path / "y" / "1.png")
    (tmp_path / "x" / "2.png").write_bytes(b"broken")
    with pytest.raises(UsageError, match="2.png"):
        load_image_folder(tmp_path)
    picture(tmp_path / "x" / "2.png")
    assert len(load_image_folder(tmp_path)["train"]) == 3


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda root: None, "holds no images"),
        (lambda root: picture(root / "1.png"), "in no class folder"),
        (
            lambda root: (picture(root / "train" / "a" / "1.png"), picture(root / "other" / "1.png")),
            "others beside them",
        ),
        (lambda root: picture(root / "train" / "1.png"), "in no class folder"),
    ],
)
def test_folders_without_classes(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(UsageError, match=message):
        load_image_folder(tmp_path)


def test_a_source_that_is_nowhere(tmp_path):
    with pytest.raises(UsageError, match="no folder here"):
        load_image_folder(tmp_path / "absent")


def test_val_fraction_is_stratified_and_seeded(toy):
    folder = toy / "labelled" / "train"
    first, again = (load_image_folder(folder, val_fraction=0.2, seed=1) for _ in range(2))
    other = load_image_folder(folder, val_fraction=0.2, seed=2)
    assert first["validation"]["file_name"] == again["validation"]["file_name"]
    assert first["validation"]["file_name"] != other["validation"]["file_name"]
    assert np.bincount(first["validation"]["labels"]).tolist() == [4, 4, 4]
    assert not set(first["validation"]["file_name"]) & set(first["train"]["file_name"])
    with pytest.raises(UsageError, match="validation split already"):
        load_image_folder(toy / "labelled", val_fraction=0.2)


def test_training_shares_are_nested_and_keep_every_class(toy):
    from hf_mae.data import load_splits
    from hf_mae.settings.data import DataSourceArguments

    def share(fraction, seed=0):
        source = DataSourceArguments(data_dir=str(toy / "labelled"), train_fraction=fraction)
        splits = load_splits(source, seed)
        assert len(splits["validation"]) == 18 and len(set(splits["train"]["labels"][:])) == 3
        return set(splits["train"]["file_name"][:])

    assert share(0.01) < share(0.1) < share(0.5) < share(1.0)
    assert [len(share(fraction)) for fraction in (0.01, 0.1, 0.5, 1.0)] == [3, 6, 30, 60]
    assert share(0.1) != share(0.1, seed=1)
    with pytest.raises(UsageError, match="train_fraction must be above 0"):
        share(0.0)


def test_small_classes_keep_an_image_on_either_side():
    labels = ["a"] * 2 + ["b"] + ["c"] * 100
    chosen = stratified_mask(labels, 0.1, seed=0)
    assert chosen[:2].sum() == 1 and not chosen[2] and chosen[3:].sum() == 10
