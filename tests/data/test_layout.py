"""What a tree of folders says, what is refused in it, and which files of it are read."""

import os
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from hf_mae import load_image_folder
from hf_mae.data.folder_layout import scan_folder
from hf_mae.data.image_files import walk_images
from hf_mae.data.splits import parse_split_name
from hf_mae.data.splitting import holdout_mask
from hf_mae.errors import UsageError


def put(root, *names):
    """Images of these names, each another one."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = abs(hash(name)) % 2**32
        pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, format="PNG" if path.suffix == ".jfif" else None)
    return root


def read(root, **options):
    """Split -> sorted (class, group) of its images."""
    entries, _ = scan_folder(root, **options)
    found = {}
    for entry in entries:
        found.setdefault(entry.split, []).append((entry.label, entry.group))
    return {split: sorted(rows, key=str) for split, rows in found.items()}


@pytest.mark.parametrize(
    "name, split",
    [
        *(
            ("Train", "train"),
            ("train_and_validation_sets", "train"),
            ("trainval", "train"),
            ("training-data", "train"),
        ),
        *(("VAL", "validation"), ("valid", "validation"), ("validation_set", "validation"), ("dev", "validation")),
        *(("test_set", "test"), ("Testing", "test"), ("test images", "test"), ("hold-out", None), ("holdout", "test")),
        *(("testis", None), ("polyp_train", None), ("images", None), ("train_test", None), ("contest", None)),
    ],
)
def test_names_of_splits(name, split):
    assert parse_split_name(name) == split


def test_splits_at_any_depth(tmp_path):
    expected = {"train": [("a", None), ("b", None)], "test": [("a", None)]}
    for number, names in enumerate(
        [
            ("train/a/1.png", "train/b/1.png", "test_set/a/1.png"),
            ("archive/v2/train/a/1.png", "archive/v2/train/b/1.png", "archive/v2/test_set/a/1.png"),
            ("a/train/1.png", "b/train/1.png", "a/test_set/1.png"),
            ("archive/a/train/1.png", "archive/b/train/1.png", "archive/a/test_set/1.png"),
        ]
    ):
        assert read(put(tmp_path / str(number), *names)) == expected


LABELS = st.lists(
    st.sampled_from(["polyp", "mucosa", "z line", "ulcer-1", "Normal"]), min_size=2, max_size=4, unique=True
)
SPLITS = st.lists(st.sampled_from(["train", "Val", "test_set"]), min_size=0, max_size=3, unique=True)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels=LABELS, splits=SPLITS, above=st.lists(st.sampled_from(["data", "v1"]), max_size=2), swap=st.booleans())
def test_any_usual_tree(tmp_path_factory, labels, splits, above, swap):
    root = tmp_path_factory.mktemp("tree")
    for split in splits or [None]:
        for label in labels:
            middle = [label] if split is None else [label, split] if swap else [split, label]
            path = root.joinpath(*above, *middle, "1.png")
            path.parent.mkdir(parents=True)
            path.write_bytes(b"x")
    entries, empty = scan_folder(root)
    assert not empty and {entry.label for entry in entries} == set(labels)
    assert {entry.split for entry in entries} == {parse_split_name(split) for split in splits} or (
        not splits and {entry.split for entry in entries} == {"train"}
    )
    assert len(entries) == len(labels) * max(1, len(splits))


def test_patients_below_the_classes_are_groups(tmp_path):
    names = [
        f"{split}/{label}/patient_{n}/{i}.png"
        for split in ("train", "val")
        for label in "ab"
        for n in "12"
        for i in "1"
    ]
    put(tmp_path, *names)
    assert read(tmp_path)["train"] == [("a", "patient_1"), ("a", "patient_2"), ("b", "patient_1"), ("b", "patient_2")]
    own = read(tmp_path, class_level=2)["train"]
    assert {label for label, _ in own} == {"patient_1", "patient_2"} and {group for _, group in own} == {None}


@pytest.mark.parametrize(
    "names, message",
    [
        (["train/a/1.png", "other/b/1.png"], "split folders .train. and others beside them .other."),
        (["a/train/1.png", "b/1.png"], "others beside them"),
        (["train/test/a/1.png", "test/train/a/1.png"], "at two levels"),
        (["site1/a/1.png", "site1/b/1.png", "site2/a/1.png"], "has a in site1/ and in site2/.*--class_level 2"),
        (["a/patient_1/1.png", "a/patient_2/1.png", "b/1.png"], "look like patients.*--class_level 1"),
        (["patient_1/patient_2/1.png"], "above all others"),
        (["1.png", "a/1.png"], "has 1 image in no class folder"),
        (["train/1.png"], "in no class folder"),
        ([], "holds no images"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(tmp_path, names, message):
    put(tmp_path, *names)
    with pytest.raises(UsageError, match=message):
        scan_folder(tmp_path)


def test_class_level_settles_it(tmp_path):
    put(tmp_path, "site1/a/1.png", "site1/b/1.png", "site2/a/1.png")
    assert read(tmp_path, class_level=2) == {"train": [("a", None), ("a", None), ("b", None)]}
    assert read(tmp_path, class_level=1)["train"][0] == ("site1", "a")
    with pytest.raises(UsageError, match="--class_level 3 does not fit site1/a/1.png"):
        scan_folder(tmp_path, class_level=3)


def test_classes_that_are_named_like_splits(tmp_path):
    put(tmp_path, "test/1.png", "train/1.png", "bus/1.png")
    with pytest.raises(UsageError, match="if all of these are classes, pass --class_level"):
        scan_folder(tmp_path)
    assert read(tmp_path, class_level=1) == {"train": [("bus", None), ("test", None), ("train", None)]}


def test_a_class_in_one_split_is_a_typo_or_meant(tmp_path):
    put(tmp_path, "train/polyp/1.png", "train/polpy/2.png", "train/mucosa/3.png", "val/polyp/4.png", "val/mucosa/5.png")
    with pytest.raises(UsageError, match=r"in one split only: polpy in train alone \(did you mean polyp\?\)"):
        load_image_folder(tmp_path)
    splits = load_image_folder(tmp_path, on_missing_class="keep")
    assert splits["train"].features["labels"].names == ["mucosa", "polpy", "polyp"]


def test_what_is_not_read_is_counted(tmp_path, caplog):
    put(tmp_path, "a/1.png", "a/2.jfif", "b/3.png", "__MACOSX/a/._1.png", ".thumbnails/4.png", "b/._3.png")
    for name in ("a/notes.txt", "b/old.zip", "b/README"):
        (tmp_path / name).write_text("x")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "b" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b" / "link.png").symlink_to(tmp_path / "a" / "1.png")
    elsewhere = put(tmp_path.parent / f"{tmp_path.name}-elsewhere", "5.png") / "5.png"
    for name in ("once.png", "twice.png"):
        (tmp_path / "b" / name).symlink_to(elsewhere)
    tree = walk_images(tmp_path)
    assert sorted(tree.images) == ["a/1.png", "a/2.jfif", "b/3.png", "b/once.png"]
    assert tree.ignored_counts == {
        ".txt": 1,
        ".zip (unpack them first)": 1,
        "files without a suffix": 1,
        "folders that are linked twice": 1,
        "hidden files": 1,
        "hidden folders": 2,
        "links to images beside them": 1,
        "pipes, devices and the like": 1,
    }
    with caplog.at_level("INFO", logger="hf_mae"):
        scan_folder(tmp_path)
    assert "Not read of" in caplog.text and "1 .zip (unpack them first)" in caplog.text


def test_names_that_are_no_utf_8_are_refused(tmp_path):
    put(tmp_path, "a/1.png")
    os.rename(tmp_path / "a" / "1.png", os.fsencode(tmp_path / "a") + b"/gr\xfcn.png")
    with pytest.raises(UsageError, match=r"1 image whose name is no UTF-8 \(b'a/gr\\xfcn.png'\)"):
        walk_images(tmp_path)


def test_an_image_in_two_splits_is_told_by_its_pixels(tmp_path):
    """Not by its bytes or its name: another compression, or other metadata, is the same image."""
    put(tmp_path, "train/a/1.png", "train/a/2.png", "train/b/3.png", "test/a/4.png", "test/b/5.png")
    with Image.open(tmp_path / "train" / "a" / "1.png") as image:
        image.save(tmp_path / "test" / "a" / "other.bmp")
    with pytest.raises(
        UsageError, match="1 image that stands in two splits:\n  train: train/a/1.png = test: test/a/other.bmp"
    ):
        load_image_folder(tmp_path)
    jpeg, copy = tmp_path / "train" / "b" / "6.jpg", tmp_path / "test" / "b" / "copy.jpg"
    (tmp_path / "test" / "a" / "other.bmp").unlink()
    with Image.open(tmp_path / "train" / "b" / "3.png") as image:
        image.resize((64, 64)).save(jpeg)
    shutil.copy(jpeg, copy)
    content = copy.read_bytes()
    copy.write_bytes(content[:2] + b"\xff\xfe\x00\x08hello!" + content[2:])  # a comment, as an editor adds one
    with pytest.raises(UsageError, match="train: train/b/6.jpg = test: test/b/copy.jpg"):
        load_image_folder(tmp_path)


@pytest.mark.parametrize(
    "groups, fraction, share",
    [
        (20, 0.4, 0.4),
        (16, 0.75, 0.75),
        (30, 0.2, 0.2),
        (12, 0.25, 0.25),
        (10, 0.3, 0.3),
        (40, 0.15, 1 / 7),
        (9, 0.5, 4 / 9),
    ],
)
def test_shares_of_patients_are_near_what_was_asked(groups, fraction, share, caplog):
    names = [f"p{number}" for number in range(groups) for _ in range(4)]
    labels = [number % 2 for number in range(groups) for _ in range(4)]
    with caplog.at_level("INFO", logger="hf_mae"):
        out = holdout_mask(labels, names, fraction, 0)
    assert abs(out.mean() - share) < 1.01 / groups
    held = {name for name, here in zip(names, out) if here}
    assert not held & {name for name, here in zip(names, out) if not here}
    assert f"{out.sum()} of {len(out)} images" in caplog.text and f"{len(held)} of {groups} patients" in caplog.text


def test_a_share_that_is_far_off_is_a_warning(caplog):
    labels, names = [0] * 90 + [1] * 10, ["one"] * 90 + [f"p{number}" for number in range(10)]
    with caplog.at_level("WARNING", logger="hf_mae"):
        holdout_mask(labels, names, 0.2, 0)
    assert "asked for: 20 %" in caplog.text
