"""Evaluation images are excluded from pre-training, and contamination is detected."""

import csv
import json
import shutil

import pytest
from PIL import Image, ImageEnhance
from support.cli_process import run_cli
from support.messages import raises, shows
from support.training import pretrain_flags

from hf_mae.cli.main import main
from hf_mae.data import load_image_folder
from hf_mae.data.checks.contamination import (
    NEAR_DUPLICATE,
    SAME_NAME,
    exclude_images,
    find_pretraining_image_list,
    find_seen_in_pretraining,
    read_file_names,
    resolve_exclude_patterns,
)
from hf_mae.data.images.messages import ImageMessage
from hf_mae.data.messages import DataMessage
from hf_mae.data.sources.unlabelled import load_unlabelled

BOTH = ["name", "hash"]


@pytest.fixture(scope="module")
def frames(shared_data, tmp_path_factory):
    """60 real frames in `frames/`, and 4 evaluation images in `evaluated/`.

    The same file under the same name; b: re-encoded and smaller, renamed; c: brighter, renamed; d: not in `frames/`.
    """
    root = tmp_path_factory.mktemp("leak")
    (root / "frames").mkdir()
    sources = sorted((shared_data / "colonoscopy_frames").glob("*.jpg"))[:61]
    for source in sources[:60]:
        shutil.copy(source, root / "frames" / source.name)
    for label in ("polyp", "mucosa"):
        (root / "evaluated" / "validation" / label).mkdir(parents=True)
        (root / "evaluated" / "train" / label).mkdir(parents=True)
        shutil.copy(sources[20 + len(label)], root / "evaluated" / "train" / label / "own.jpg")
    folder = root / "evaluated" / "validation"
    shutil.copy(sources[3], folder / "polyp" / sources[3].name)
    image = Image.open(sources[7])
    image.resize((image.width * 3 // 4, image.height * 3 // 4)).save(folder / "polyp" / "b.jpg", quality=70)
    ImageEnhance.Brightness(Image.open(sources[9])).enhance(1.2).save(folder / "mucosa" / "c.png")
    shutil.copy(sources[60], folder / "mucosa" / "d.jpg")
    return root, [source.name for source in sources]


def test_images_are_excluded_by_name_and_as_near_duplicates(frames):
    root, names = frames
    images = load_unlabelled(str(root / "frames"), "error")
    remaining, excluded = exclude_images(images, [str(root / "evaluated" / "validation")], BOTH)
    assert {(match.file_name, match.reason) for match in excluded} == {
        (names[3], SAME_NAME),
        (names[7], NEAR_DUPLICATE),
        (names[9], NEAR_DUPLICATE),
    }
    assert len(remaining) == 57 and not {match.file_name for match in excluded} & set(remaining["file_name"][:])
    _, by_name = exclude_images(images, [str(root / "evaluated" / "validation")], ["name"])
    _, by_hash = exclude_images(images, [str(root / "evaluated" / "validation")], ["hash"])
    assert [match.file_name for match in by_name] == [names[3]]
    assert {match.file_name for match in by_hash} == {names[3], names[7], names[9]}
    assert {match.reason for match in by_hash} == {NEAR_DUPLICATE}


def test_a_list_that_names_a_frame_also_excludes_its_copies(frames, tmp_path):
    root, names = frames
    shutil.copytree(root / "frames", tmp_path / "frames")
    Image.open(tmp_path / "frames" / names[5]).save(tmp_path / "frames" / "copy.png")
    (tmp_path / "folds.csv").write_text(f"file-name;class-name;split-index\n{names[5]};polyp;1\n{names[6]};polyp;0\n")
    images = load_unlabelled(str(tmp_path / "frames"), "error")
    _, excluded = exclude_images(images, [f"{tmp_path / 'folds.csv'}:1"], BOTH)
    assert {(match.file_name, match.reason) for match in excluded} == {
        (names[5], SAME_NAME),
        ("copy.png", NEAR_DUPLICATE),
    }
    assert "folds.csv:1" in next(match.matched_file for match in excluded if match.reason == SAME_NAME)


def test_official_lists_are_read(shared_data):
    folds = shared_data / "splits" / "hyperkvasir" / "2_fold_split.csv"
    assert [len(read_file_names(folds, split)) for split in (None, "0", "1")] == [10662, 5324, 5338]
    assert len(read_file_names(shared_data / "splits" / "gastrovision" / "test.csv", None)) == 1586
    assert len(read_file_names(shared_data / "splits" / "hyperkvasir" / "quality_excluded_16_classes.csv", None)) == 242


@pytest.mark.parametrize(
    "text, split, message",
    [
        ("picture,label\nx,y\n", None, DataMessage.LIST_WITHOUT_FILE_NAMES),
        ("file_name,split\nx,test\n", "validation", DataMessage.LIST_UNKNOWN_SPLIT),
        ("file_name\nx\n", "test", DataMessage.LIST_WITHOUT_SPLITS),
    ],
)
def test_invalid_lists_are_rejected(tmp_path, text, split, message):
    (tmp_path / "a.csv").write_text(text)
    with raises(message, path=tmp_path / "a.csv"):
        read_file_names(tmp_path / "a.csv", split)


def test_a_pattern_that_matches_nothing_is_rejected(tmp_path):
    with raises(DataMessage.EXCLUDE_MATCHES_NOTHING, pattern=tmp_path / "absent"):
        resolve_exclude_patterns([str(tmp_path / "absent")])


@pytest.mark.parametrize("deleted", [False, True])
def test_finetuning_warns_about_images_seen_in_pretraining(frames, tmp_path, deleted):
    """If the frames were deleted, or are on another machine, the names and hashes are compared."""
    root, names = frames
    shutil.copytree(root / "frames", tmp_path / "frames")
    argv = pretrain_flags(tmp_path, tmp_path / "pre", data_dir=tmp_path / "frames", max_steps=1, reconstruction_steps=0)
    run_cli("pretrain", *argv)
    if deleted:
        shutil.rmtree(tmp_path / "frames")
    splits = load_image_folder(root / "evaluated")
    image_list = find_pretraining_image_list(tmp_path / "pre")
    seen = find_seen_in_pretraining(image_list, tmp_path / "frames", splits)
    matches = {(match.file_name, match.reason) for match in seen["validation"]}
    assert {(f"validation/polyp/{names[3]}", SAME_NAME), ("validation/polyp/b.jpg", NEAR_DUPLICATE)} <= matches
    assert not any(name.endswith("d.jpg") for name, _ in matches)
    if not deleted:
        assert ("validation/mucosa/c.png", NEAR_DUPLICATE) in matches
    out = tmp_path / "ft"
    common = ["--data_dir", root / "evaluated", "--max_steps", 1, "--report_to", "none", "--output_dir", out]
    done = run_cli("finetune", "--model_name_or_path", tmp_path / "pre", *common)
    counts = [f"{len(matches)} of the 4 validation images"]
    assert shows(done.stderr, ImageMessage.SEEN_IN_PRETRAINING, counts=counts)
    rows = list(csv.DictReader(open(out / "seen_in_pretraining.csv")))
    assert {(row["file_name"], row["reason"]) for row in rows if row["split"] == "validation"} == matches
    assert json.loads((out / "all_results.json").read_text())["seen_in_pretraining"]["validation"] == len(matches)
    assert (
        f"{len(matches)} of the 4 images were in the pre-training"
        in run_cli("report", out, "--output_dir", tmp_path / "report").stdout
    )


def test_excluded_images_are_recorded_and_give_no_warning(frames, tmp_path):
    root, names = frames
    argv = pretrain_flags(tmp_path, tmp_path / "pre", data_dir=root / "frames", max_steps=1, reconstruction_steps=0)
    assert main(["pretrain", *argv, "--exclude", str(root / "evaluated" / "validation")]) == 0
    results = json.loads((tmp_path / "pre" / "all_results.json").read_text())
    assert (results["images"], results["excluded"]) == ({"train": 57}, 3)
    rows = list(csv.DictReader(open(tmp_path / "pre" / "excluded_images.csv")))
    assert {row["file_name"] for row in rows} == {names[3], names[7], names[9]}
    assert "3 images were excluded" in (tmp_path / "pre" / "README.md").read_text()
    common = ["--data_dir", root / "evaluated", "--max_steps", 1, "--report_to", "none"]
    done = run_cli("finetune", "--model_name_or_path", tmp_path / "pre", *common, "--output_dir", tmp_path / "ft")
    assert not shows(done.stderr, ImageMessage.SEEN_IN_PRETRAINING)
    assert json.loads((tmp_path / "ft" / "all_results.json").read_text())["seen_in_pretraining"] == {}


def test_random_weights_have_not_seen_any_image(frames, tiny_pth, tmp_path):
    """Only the sizes come from the checkpoint, so there is neither pre-training nor a licence."""
    root, _ = frames
    common = [
        "--model_name_or_path",
        tiny_pth,
        "--data_dir",
        root / "evaluated",
        "--max_steps",
        1,
        "--report_to",
        "none",
    ]
    done = run_cli("finetune", *common, "--random_weights", "true", "--output_dir", tmp_path / "ft")
    assert "Random weights" in done.stderr
    results = json.loads((tmp_path / "ft" / "all_results.json").read_text())
    assert results["base"] == "random weights" and results["seen_in_pretraining"] is None
    assert "choose any licence" in (tmp_path / "ft" / "README.md").read_text()
