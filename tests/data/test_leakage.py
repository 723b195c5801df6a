"""Images that are evaluated later stay out of pre-training, and are noticed where they did not."""

import csv
import json
import shutil

import pytest
from PIL import Image, ImageEnhance
from support.cli_process import run_cli
from support.training import pretrain_flags

from hf_mae.cli.main import main
from hf_mae.data import load_image_folder
from hf_mae.data.contamination import (
    NEAR_DUPLICATE,
    SAME_NAME,
    exclude_images,
    find_pretraining_image_list,
    find_seen_in_pretraining,
)
from hf_mae.data.exclude_list import read_file_names, resolve_exclude_patterns
from hf_mae.data.unlabelled import load_unlabelled
from hf_mae.errors import UsageError

BOTH = ["name", "hash"]


@pytest.fixture(scope="module")
def frames(shared_data, tmp_path_factory):
    """60 real frames in `frames/`, of which 4 will be evaluated: `a` to `d` in `evaluated/`.

    a: the same file under its own name; b: re-encoded and smaller, renamed; c: brighter, renamed; d: not among them.
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


def test_excluded_by_name_and_by_sight(frames):
    root, names = frames
    images = load_unlabelled(str(root / "frames"), "error")
    kept, left = exclude_images(images, [str(root / "evaluated" / "validation")], BOTH)
    assert {(match.file_name, match.reason) for match in left} == {
        (names[3], SAME_NAME),
        (names[7], NEAR_DUPLICATE),
        (names[9], NEAR_DUPLICATE),
    }
    assert len(kept) == 57 and not {match.file_name for match in left} & set(kept["file_name"][:])
    _, by_name = exclude_images(images, [str(root / "evaluated" / "validation")], ["name"])
    _, by_sight = exclude_images(images, [str(root / "evaluated" / "validation")], ["hash"])
    assert [match.file_name for match in by_name] == [names[3]]
    assert {match.file_name for match in by_sight} == {names[3], names[7], names[9]}
    assert {match.reason for match in by_sight} == {NEAR_DUPLICATE}


def test_a_list_that_names_a_frame_also_excludes_its_copies(frames, tmp_path):
    root, names = frames
    shutil.copytree(root / "frames", tmp_path / "frames")
    Image.open(tmp_path / "frames" / names[5]).save(tmp_path / "frames" / "copy.png")
    (tmp_path / "folds.csv").write_text(f"file-name;class-name;split-index\n{names[5]};polyp;1\n{names[6]};polyp;0\n")
    images = load_unlabelled(str(tmp_path / "frames"), "error")
    _, left = exclude_images(images, [f"{tmp_path / 'folds.csv'}:1"], BOTH)
    assert {(match.file_name, match.reason) for match in left} == {(names[5], SAME_NAME), ("copy.png", NEAR_DUPLICATE)}
    assert "folds.csv:1" in next(match.matched_file for match in left if match.reason == SAME_NAME)


def test_the_official_lists_are_read(shared_data):
    folds = shared_data / "splits" / "hyperkvasir" / "2_fold_split.csv"
    assert [len(read_file_names(folds, split)) for split in (None, "0", "1")] == [10662, 5324, 5338]
    assert len(read_file_names(shared_data / "splits" / "gastrovision" / "test.csv", None)) == 1586
    assert len(read_file_names(shared_data / "splits" / "hyperkvasir" / "quality_excluded_16_classes.csv", None)) == 242


@pytest.mark.parametrize(
    "name, text, split, message",
    [
        ("a.csv", "picture,label\nx,y\n", None, "has no column of file names"),
        ("a.csv", "file_name,split\nx,test\n", "validation", "its split is one of test"),
        ("a.csv", "file_name\nx\n", "test", "it has no column split"),
        ("a.jsonl", "{", None, "has a line that is no JSON"),
    ],
)
def test_lists_that_cannot_be_read(tmp_path, name, text, split, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        read_file_names(tmp_path / name, split)


def test_a_word_that_stands_for_nothing(tmp_path):
    with pytest.raises(UsageError, match="names no image"):
        resolve_exclude_patterns([str(tmp_path / "absent")])


@pytest.mark.parametrize("gone", [False, True])
def test_finetuning_warns_of_what_its_base_has_seen(frames, tmp_path, gone):
    """Also where the frames themselves are gone, or on another machine: by name and hash."""
    root, names = frames
    shutil.copytree(root / "frames", tmp_path / "frames")
    argv = pretrain_flags(tmp_path, tmp_path / "pre", data_dir=tmp_path / "frames", max_steps=1, reconstruction_steps=0)
    run_cli("pretrain", *argv)
    if gone:
        shutil.rmtree(tmp_path / "frames")
    splits = load_image_folder(root / "evaluated")
    listed = find_pretraining_image_list(tmp_path / "pre")
    seen = find_seen_in_pretraining(listed, tmp_path / "frames", splits)
    found = {(match.file_name, match.reason) for match in seen["validation"]}
    assert {(f"validation/polyp/{names[3]}", SAME_NAME), ("validation/polyp/b.jpg", NEAR_DUPLICATE)} <= found
    assert not any(name.endswith("d.jpg") for name, _ in found)
    if not gone:
        assert ("validation/mucosa/c.png", NEAR_DUPLICATE) in found
    out = tmp_path / "ft"
    common = ["--data_dir", root / "evaluated", "--max_steps", 1, "--report_to", "none", "--output_dir", out]
    done = run_cli("finetune", "--model_name_or_path", tmp_path / "pre", *common)
    assert f"was pre-trained on {len(found)} of the 4 validation images" in done.stderr
    rows = list(csv.DictReader(open(out / "seen_in_pretraining.csv")))
    assert {(row["file_name"], row["reason"]) for row in rows if row["split"] == "validation"} == found
    assert json.loads((out / "all_results.json").read_text())["seen_in_pretraining"]["validation"] == len(found)
    assert (
        f"{len(found)} of the 4 images were in the pre-training"
        in run_cli("report", out, "--output_dir", tmp_path / "report").stdout
    )


def test_what_was_excluded_is_recorded_and_gives_no_warning(frames, tmp_path):
    root, names = frames
    argv = pretrain_flags(tmp_path, tmp_path / "pre", data_dir=root / "frames", max_steps=1, reconstruction_steps=0)
    assert main(["pretrain", *argv, "--exclude", str(root / "evaluated" / "validation")]) == 0
    results = json.loads((tmp_path / "pre" / "all_results.json").read_text())
    assert (results["images"], results["excluded"]) == (57, 3)
    rows = list(csv.DictReader(open(tmp_path / "pre" / "excluded_images.csv")))
    assert {row["file_name"] for row in rows} == {names[3], names[7], names[9]}
    assert "3 images were left out" in (tmp_path / "pre" / "README.md").read_text()
    common = ["--data_dir", root / "evaluated", "--max_steps", 1, "--report_to", "none"]
    done = run_cli("finetune", "--model_name_or_path", tmp_path / "pre", *common, "--output_dir", tmp_path / "ft")
    assert "was pre-trained on" not in done.stderr
    assert json.loads((tmp_path / "ft" / "all_results.json").read_text())["seen_in_pretraining"] == {}


def test_random_weights_have_seen_nothing(frames, tiny_pth, tmp_path):
    """Only the sizes are the checkpoint's: another seed, other weights; no pre-training, no licence."""
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
    assert "yours to choose" in (tmp_path / "ft" / "README.md").read_text()
