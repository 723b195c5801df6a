"""`hf-mae prepare`: each file is decoded once, and training uses the cache."""

import shutil

import pytest
from support.messages import shows

from hf_mae.cli.main import main
from hf_mae.data import EvalDataset, TrainDataset, image_processor, load_image_folder, training_transform
from hf_mae.data.images import image_check, torch_datasets
from hf_mae.data.messages import DataMessage
from hf_mae.files import caches


@pytest.fixture
def decoded(monkeypatch, tmp_path) -> list[str]:
    """The paths of the decoded files; the cache is a temporary folder."""
    paths = []

    def record_path(function):
        return lambda path: paths.append(path) or function(path)

    monkeypatch.setattr(caches, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(image_check, "check_decoding", record_path(image_check.check_decoding))
    monkeypatch.setattr(image_check, "read_rgb", record_path(image_check.read_rgb))
    monkeypatch.setattr(
        torch_datasets,
        "read_rgb",
        lambda encoded, original=torch_datasets.read_rgb: paths.append(encoded["path"]) or original(encoded),
    )
    return paths


@pytest.fixture
def data(toy, tmp_path):
    return shutil.copytree(toy / "labelled", tmp_path / "data")


def prepare(data, *more, family="endoscopy") -> int:
    return main(["prepare", "--data_dir", str(data), "--image_size", "32", "--transforms", family, *map(str, more)])


@pytest.mark.parametrize("family", ["endoscopy", "imagenet"])
def test_each_file_is_decoded_once_and_not_during_training(decoded, data, family):
    assert prepare(data, family=family) == 0
    files = sorted(map(str, data.rglob("*.jpg")))
    assert sorted(decoded) == files
    decoded.clear()
    splits = load_image_folder(data)
    TrainDataset(splits["train"], training_transform(family, 32, cache_shortest_edge=64))
    EvalDataset(splits["test"], image_processor(family, 32))
    assert decoded == []
    assert prepare(data, family=family) == 0 and decoded == []


def test_all_invalid_images_are_listed_and_the_others_are_cached(decoded, data, capsys):
    files = sorted(data.rglob("*.jpg"))
    bad = [next(f for f in files if f"/{split}/" in str(f)) for split in ("train", "test")]
    for path in bad:
        path.write_bytes(path.read_bytes()[:300])
    assert prepare(data) == 1
    printed = capsys.readouterr().err
    assert shows(printed, DataMessage.INVALID_IMAGES)
    assert "2 unreadable images" in printed and all(f"{path.name} (" in printed for path in bad)
    assert str(data) not in printed.split("unreadable images")[1]
    decoded.clear()
    assert prepare(data, "--on_bad_image", "skip") == 0
    assert decoded == []
    assert len(load_image_folder(data, on_bad_image="skip")["train"]) == sum("/train/" in str(f) for f in files) - 1


def test_without_cached_pixels_files_are_only_checked(decoded, data):
    assert prepare(data, "--cache_shortest_edge", 0, family="imagenet") == 0
    assert len(decoded) == len(list(data.rglob("*.jpg")))


def test_held_out_images_are_cached_for_training_and_evaluation(decoded, data, tmp_path):
    """They are selected after the check, so they are first cached as training images."""
    for split in ("validation", "test"):
        shutil.rmtree(data / split)
    assert prepare(data, "--val_fraction", 0.2) == 0
    assert len(list(data.rglob("*.jpg"))) < len(decoded) < 1.3 * len(list(data.rglob("*.jpg")))
    decoded.clear()
    EvalDataset(load_image_folder(data, val_fraction=0.2)["validation"], image_processor("endoscopy", 32))
    assert decoded == []
