"""Files with several frames in datasets: rejected by name, or read with --frames, with the file as the group."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from datasets import Image as ImageFeature
from PIL import Image
from support.frame_files import KINDS, encode, make_frames, write_dicom, write_frames
from support.messages import raises

from hf_mae.data import load_image_folder
from hf_mae.data.images.image_io import read_rgb
from hf_mae.data.images.torch_datasets import CachedPixelReader, PixelReader
from hf_mae.data.messages import DataMessage
from hf_mae.data.sources.image_files import walk_images
from hf_mae.data.sources.unlabelled import load_unlabelled

COUNT = 5
FILES = [f"polyp/stack.{suffix}" for suffix in KINDS] + ["normal/video.avi"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Class folders with three images per class, and a file with five frames of each format."""
    root = tmp_path_factory.mktemp("frames") / "data"
    for label in ("polyp", "normal"):
        (root / label).mkdir(parents=True)
        for number in range(3):
            pixels = make_frames(1, seed=100 + number + 10 * len(label))[0]
            (root / label / f"{number}.png").write_bytes(encode(Image.fromarray(pixels)))
    for seed, suffix in enumerate(KINDS):
        write_frames(root / "polyp" / f"stack.{suffix}", make_frames(COUNT, seed=seed))
    writer = cv2.VideoWriter(str(root / "normal" / "video.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 48))
    for frame in make_frames(COUNT, (48, 64), seed=99):
        writer.write(frame)
    writer.release()
    return root


def expected_names(frames):
    numbers = {"all": range(COUNT), "first": [0], "middle": [2]}[frames]
    images = [f"{label}/{number}.png" for label in ("polyp", "normal") for number in range(3)]
    return sorted([*images, *(f"{file}#frame={number}" for file in FILES for number in numbers)])


def test_all_files_with_several_frames_are_rejected_by_name(folder):
    with raises(DataMessage.INVALID_IMAGES) as caught:
        load_image_folder(str(folder))
    assert all(file in caught.value.attributes["problems"] for file in FILES)
    with raises(DataMessage.UNREADABLE_IMAGES, count=len(FILES)):
        load_unlabelled(str(folder), "error", decode=False)
    names = load_image_folder(str(folder), on_bad_image="skip")["train"]["file_name"][:]
    assert len(names) == 6 and all(name.endswith(".png") for name in names)


@pytest.mark.parametrize("frames", ["all", "first", "middle"])
def test_frames_are_images_and_their_file_is_the_group(folder, frames):
    dataset = load_image_folder(str(folder), frames=frames)["train"]
    assert sorted(dataset["file_name"][:]) == expected_names(frames)
    for name, group, label in zip(dataset["file_name"], dataset["group"], dataset["labels"]):
        assert group == name.partition("#frame=")[0]
        assert dataset.features["labels"].int2str(label) == name.split("/")[0]
    for reader in (PixelReader(dataset, None), CachedPixelReader(dataset, Unchanged(), 2)):
        for index, name in enumerate(dataset["file_name"][:]):
            assert np.array_equal(np.asarray(reader[index]), np.asarray(read_rgb(folder / name)))
    unlabelled = load_unlabelled(str(folder), "error", frames=frames)
    assert unlabelled["file_name"][:] == expected_names(frames)


class Unchanged:
    """A resize that does nothing."""

    def __call__(self, image):
        return image

    def __repr__(self):
        return "Unchanged()"


def test_a_manifest_lists_frames_whose_file_is_the_group(tmp_path):
    rows = [("file_name", "label")]
    for number in range(6):
        write_frames(tmp_path / f"{number}.tif", make_frames(COUNT, seed=number))
        rows += [(f"{number}.tif#frame={index}", ("normal", "polyp")[number % 2]) for index in (0, 3)]
    (tmp_path / "m.csv").write_text("".join(f"{name},{label}\n" for name, label in rows))
    splits = load_image_folder(str(tmp_path / "m.csv"), val_fraction=0.4)
    held_out, training = (
        {name.split("#")[0] for name in splits[part]["file_name"][:]} for part in ("validation", "train")
    )
    assert held_out and training and not held_out & training
    pixels = PixelReader(splits["train"], None)
    for index, name in enumerate(splits["train"]["file_name"][:]):
        number, frame = int(name[0]), int(name[-1])
        assert np.array_equal(np.asarray(pixels[index]), make_frames(COUNT, seed=number)[frame])


def test_frames_of_one_file_are_held_out_together(folder):
    splits = load_image_folder(str(folder), frames="all", val_fraction=0.4)
    groups = [set(splits[split]["group"]) for split in ("train", "validation")]
    assert all(groups) and not groups[0] & groups[1]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archives_have_the_same_frames(folder, tmp_path, kind):
    root = tmp_path / "data"
    shutil.copytree(folder, root)
    (root / "normal" / "video.avi").unlink()  # OpenCV reads videos from files only
    archive = shutil.make_archive(str(tmp_path / "packed"), kind, root)
    plain, packed = (load_image_folder(str(source), frames="all")["train"] for source in (root, archive))
    for column in ("file_name", "labels", "group"):
        assert packed[column][:] == plain[column][:]
    rows = packed.cast_column("image", ImageFeature(decode=False))
    for index in (0, 9, 20, len(packed) - 1):
        assert np.array_equal(
            np.asarray(read_rgb(rows[index]["image"])), np.asarray(read_rgb(root / packed["file_name"][index]))
        )
    with raises(DataMessage.INVALID_IMAGES):
        load_image_folder(archive)


def test_dicom_files_without_a_suffix_are_found(tmp_path):
    for number, name in enumerate(("IM000001", "1.2.840.10008.7", "DICOMDIR", "notes")):
        write_dicom(tmp_path / name, make_frames(1, seed=number)[0], "RGB")
    (tmp_path / "notes").write_text("no image")
    assert [Path(file).name for file in walk_images(tmp_path).images] == ["1.2.840.10008.7", "IM000001"]
