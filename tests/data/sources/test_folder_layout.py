"""Layouts of folder trees: splits, classes and patients, ambiguous layouts, and ignored files."""

import os
import shutil
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.messages import logged, raises

from hf_mae import load_image_folder
from hf_mae.data.messages import DataMessage
from hf_mae.data.sources.image_files import walk_images
from hf_mae.data.sources.kinds import SourceOptions
from hf_mae.data.sources.source import open_source
from hf_mae.data.sources.split_loading import assign_samples
from hf_mae.data.splits import holdout_mask, parse_split_name


def write_images(root, *names):
    """Writes a different image for each name."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, format="PNG" if path.suffix == ".jfif" else None)
    return root


def read_layout(root, **options):
    """Split -> sorted (class, group) of its images."""
    assigned = assign_samples(open_source(str(root), SourceOptions(**options)))
    by_split = {}
    for split, *row in zip(assigned.splits, assigned.labels, assigned.groups or [None] * len(assigned.labels)):
        by_split.setdefault(split, []).append(tuple(row))
    return {split: sorted(rows, key=str) for split, rows in by_split.items()}


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
        *(
            ("test_set", "test"),
            ("Testing", "test"),
            ("test images", "test"),
            ("hold-out", "test"),
            ("held_out set", "test"),
            ("holdout", "test"),
        ),
        *(("testis", None), ("polyp_train", None), ("images", None), ("train_test", None), ("contest", None)),
    ],
)
def test_split_names_are_parsed(name, split):
    assert parse_split_name(name) == split


def test_splits_may_be_at_any_depth(tmp_path):
    expected = {"train": [("a", None), ("b", None)], "test": [("a", None)]}
    for number, names in enumerate(
        [
            ("train/a/1.png", "train/b/1.png", "test_set/a/1.png"),
            ("archive/v2/train/a/1.png", "archive/v2/train/b/1.png", "archive/v2/test_set/a/1.png"),
            ("a/train/1.png", "b/train/1.png", "a/test_set/1.png"),
            ("archive/a/train/1.png", "archive/b/train/1.png", "archive/a/test_set/1.png"),
        ]
    ):
        assert read_layout(write_images(tmp_path / str(number), *names)) == expected


LABELS = st.lists(
    st.sampled_from(["polyp", "mucosa", "z line", "ulcer-1", "Normal"]), min_size=2, max_size=4, unique=True
)
SPLITS = st.lists(st.sampled_from(["train", "Val", "test_set"]), min_size=0, max_size=3, unique=True)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels=LABELS, splits=SPLITS, above=st.lists(st.sampled_from(["data", "v1"]), max_size=2), swap=st.booleans())
def test_usual_layouts_are_read(tmp_path_factory, labels, splits, above, swap):
    root = tmp_path_factory.mktemp("tree")
    for split in splits or [None]:
        for label in labels:
            middle = [label] if split is None else [label, split] if swap else [split, label]
            path = root.joinpath(*above, *middle, "1.png")
            path.parent.mkdir(parents=True)
            path.write_bytes(b"x")
    source = open_source(str(root))
    assigned = assign_samples(source)
    assert not source.samples.empty_folders and set(assigned.labels) == set(labels)
    assert set(assigned.splits) == {parse_split_name(split) for split in splits or ["train"]}
    assert len(assigned.labels) == len(labels) * max(1, len(splits))


def test_patient_folders_below_classes_are_groups(tmp_path):
    names = [
        f"{split}/{label}/patient_{n}/{i}.png"
        for split in ("train", "val")
        for label in "ab"
        for n in "12"
        for i in "1"
    ]
    write_images(tmp_path, *names)
    assert read_layout(tmp_path)["train"] == [
        ("a", "patient_1"),
        ("a", "patient_2"),
        ("b", "patient_1"),
        ("b", "patient_2"),
    ]
    rows = read_layout(tmp_path, class_level=2)["train"]
    assert {label for label, _ in rows} == {"patient_1", "patient_2"} and {group for _, group in rows} == {None}


@pytest.mark.parametrize(
    "names, message, attributes",
    [
        (
            ["train/a/1.png", "other/b/1.png"],
            DataMessage.SPLITS_INCOMPLETE,
            {"reading": "path: train/a/1.png", "other": "other/b/1.png"},
        ),
        (["a/train/1.png", "b/1.png"], DataMessage.SPLITS_INCOMPLETE, {"other": "b/1.png"}),
        (["train/test/a/1.png", "test/train/a/1.png"], DataMessage.SPLITS_AT_TWO_LEVELS, {}),
        (
            ["site1/a/1.png", "site1/b/1.png", "site2/a/1.png"],
            DataMessage.SAME_CLASSES_IN_TWO_FOLDERS,
            {"names": ["a"], "first": "site1", "second": "site2", "level": 2},
        ),
        (
            ["a/patient_1/1.png", "a/patient_2/1.png", "b/1.png"],
            DataMessage.PATIENT_FOLDERS_IN_PART,
            {"patient": "a/patient_1/1.png", "other": "b/1.png", "level": 2},
        ),
        (["patient_1/patient_2/1.png"], DataMessage.PATIENTS_ABOVE_CLASSES, {"folder": "patient_1"}),
        (["1.png", "a/1.png"], DataMessage.IMAGES_OUTSIDE_CLASS_FOLDERS, {"count": 1, "names": "1.png"}),
        (["train/1.png"], DataMessage.IMAGES_OUTSIDE_CLASS_FOLDERS, {}),
        ([], DataMessage.FOLDER_WITHOUT_CLASSES, {}),
    ],
)
def test_ambiguous_layouts_are_rejected(tmp_path, names, message, attributes):
    write_images(tmp_path, *names)
    with raises(message, **attributes):
        read_layout(tmp_path)


def test_class_level_resolves_ambiguous_layouts(tmp_path):
    write_images(tmp_path, "site1/a/1.png", "site1/b/1.png", "site2/a/1.png")
    assert read_layout(tmp_path, class_level=2) == {"train": [("a", None), ("a", None), ("b", None)]}
    assert read_layout(tmp_path, class_level=1)["train"][0] == ("site1", "a")
    with raises(DataMessage.CLASS_LEVEL_TOO_DEEP, level=3, name="site1/a/1.png"):
        read_layout(tmp_path, class_level=3)


def test_classes_may_be_named_like_splits(tmp_path):
    write_images(tmp_path, "test/1.png", "train/1.png", "bus/1.png")
    with raises(DataMessage.SPLITS_INCOMPLETE, other="bus/1.png"):
        read_layout(tmp_path)
    assert read_layout(tmp_path, class_level=1) == {"train": [("bus", None), ("test", None), ("train", None)]}


def test_classes_in_one_split_only_are_rejected_by_default(tmp_path):
    write_images(
        tmp_path, "train/polyp/1.png", "train/polpy/2.png", "train/mucosa/3.png", "val/polyp/4.png", "val/mucosa/5.png"
    )
    with raises(DataMessage.CLASSES_IN_ONE_SPLIT, classes="polpy in train (did you mean polyp?)"):
        load_image_folder(tmp_path)
    splits = load_image_folder(tmp_path, on_missing_class="keep")
    assert splits["train"].features["labels"].names == ["mucosa", "polpy", "polyp"]


def test_ignored_files_are_counted(tmp_path, caplog):
    write_images(tmp_path, "a/1.png", "a/2.jfif", "b/3.png", "__MACOSX/a/._1.png", ".thumbnails/4.png", "b/._3.png")
    for name in ("a/notes.txt", "b/old.zip", "b/README"):
        (tmp_path / name).write_text("x")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "b" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b" / "link.png").symlink_to(tmp_path / "a" / "1.png")
    elsewhere = write_images(tmp_path.parent / f"{tmp_path.name}-elsewhere", "5.png") / "5.png"
    for name in ("once.png", "twice.png"):
        (tmp_path / "b" / name).symlink_to(elsewhere)
    tree = walk_images(tmp_path)
    assert sorted(tree.images) == ["a/1.png", "a/2.jfif", "b/3.png", "b/once.png"]
    assert tree.ignored_counts == {
        ".txt": 1,
        ".zip (extract them first)": 1,
        "files without a suffix": 1,
        "folders that are linked again": 1,
        "hidden files": 1,
        "hidden folders": 2,
        "links to images in the same folder tree": 1,
        "special files (pipes, devices)": 1,
    }
    with caplog.at_level("INFO", logger="hf_mae"):
        read_layout(tmp_path)
    assert f"Ignored in {tmp_path}: " in caplog.text and "1 .zip (extract them first)" in caplog.text


def test_file_names_must_be_utf8(tmp_path):
    write_images(tmp_path, "a/1.png")
    os.rename(tmp_path / "a" / "1.png", os.fsencode(tmp_path / "a") + b"/gr\xfcn.png")
    with raises(DataMessage.FILE_NAME_NOT_UTF8, count=1, name=b"a/gr\xfcn.png"):
        walk_images(tmp_path)


def test_images_in_two_splits_are_compared_by_their_pixels(tmp_path):
    """With another compression or other metadata it is the same image."""
    write_images(tmp_path, "train/a/1.png", "train/a/2.png", "train/b/3.png", "test/a/4.png", "test/b/5.png")
    with Image.open(tmp_path / "train" / "a" / "1.png") as image:
        image.save(tmp_path / "test" / "a" / "other.bmp")
    problems = "1 image in two splits:\n  train: train/a/1.png = test: test/a/other.bmp"
    with raises(DataMessage.INVALID_IMAGES, problems=problems):
        load_image_folder(tmp_path)
    jpeg, copy = tmp_path / "train" / "b" / "6.jpg", tmp_path / "test" / "b" / "copy.jpg"
    (tmp_path / "test" / "a" / "other.bmp").unlink()
    with Image.open(tmp_path / "train" / "b" / "3.png") as image:
        image.resize((64, 64)).save(jpeg)
    shutil.copy(jpeg, copy)
    content = copy.read_bytes()
    copy.write_bytes(content[:2] + b"\xff\xfe\x00\x08hello!" + content[2:])  # a comment, as an editor adds one
    problems = "1 image in two splits:\n  train: train/b/6.jpg = test: test/b/copy.jpg"
    with raises(DataMessage.INVALID_IMAGES, problems=problems):
        load_image_folder(tmp_path)


@pytest.mark.parametrize(
    "num_groups, fraction, expected",
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
def test_the_fraction_of_held_out_patients_is_near_the_requested_one(num_groups, fraction, expected, caplog):
    names = [f"p{number}" for number in range(num_groups) for _ in range(4)]
    labels = [number % 2 for number in range(num_groups) for _ in range(4)]
    with caplog.at_level("INFO", logger="hf_mae"):
        mask = holdout_mask(labels, names, fraction, 0)
    assert abs(mask.mean() - expected) < 1.01 / num_groups
    held_out = {name for name, is_held_out in zip(names, mask) if is_held_out}
    assert not held_out & {name for name, is_held_out in zip(names, mask) if not is_held_out}
    attributes = {"images": mask.sum(), "all_images": len(mask), "groups": len(held_out), "all_groups": num_groups}
    assert logged(caplog.records, DataMessage.GROUPS_HELD_OUT, **attributes)


def test_a_fraction_far_from_the_requested_one_is_a_warning(caplog):
    labels, names = [0] * 90 + [1] * 10, ["one"] * 90 + [f"p{number}" for number in range(10)]
    with caplog.at_level("WARNING", logger="hf_mae"):
        holdout_mask(labels, names, 0.2, 0)
    assert logged(caplog.records, DataMessage.GROUPS_HELD_OUT, requested=20)
