"""`hf-mae audit`: planted near-duplicates are found, similar images are not."""

import csv
import io
import os
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from support.cli_process import run_cli
from support.messages import shows

from hf_mae.cli.main import main
from hf_mae.data.checks import duplicates
from hf_mae.data.checks.duplicates import compute_similarity, find_candidate_pairs, find_near_duplicates
from hf_mae.data.messages import DataMessage
from hf_mae.settings.messages import SettingsMessage

KINDS = ("re-encoded", "resized", "cropped", "brightness", "all")


def alter(image: Image.Image, kind: str, rng: random.Random) -> Image.Image:
    """A near-duplicate of an image."""
    width, height = image.size
    if kind in ("cropped", "all"):
        left, top, right, bottom = (rng.uniform(0, 0.06) for _ in range(4))
        image = image.crop((int(left * width), int(top * height), int((1 - right) * width), int((1 - bottom) * height)))
    if kind in ("brightness", "all"):
        image = ImageEnhance.Brightness(image).enhance(rng.choice([rng.uniform(0.7, 0.85), rng.uniform(1.15, 1.35)]))
    if kind in ("resized", "all"):
        scale = rng.uniform(0.5, 1.6)
        image = image.resize((int(image.width * scale), int(image.height * scale)))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=rng.randint(30, 90))
    return Image.open(content)


@pytest.fixture(scope="module")
def planted(shared_data, tmp_path_factory):
    """The real frames, and an altered copy of every fourth: the folder, and the planted pairs."""
    root, rng, pairs = tmp_path_factory.mktemp("planted"), random.Random(0), set()
    for number, path in enumerate(sorted((shared_data / "colonoscopy_frames").glob("*.jpg"))):
        os.link(path, root / path.name) if path.stat().st_dev == root.stat().st_dev else (root / path.name).write_bytes(
            path.read_bytes()
        )
        if number % 4 == 0:
            kind = KINDS[number // 4 % len(KINDS)]
            with Image.open(path) as image:
                alter(image.convert("RGB"), kind, rng).save(root / f"copy_{path.stem}.png")
            pairs.add(frozenset((path.name, f"copy_{path.stem}.png")))
    return root, pairs


# Near-duplicates among the original frames, confirmed on the contact sheet.
KNOWN_PAIR = frozenset(("cju5fydrud94708507vo6oy21.jpg", "cju7avvi51iox0817ym55y6tt.jpg"))


def test_planted_duplicates_are_found_with_few_false_positives(planted, tmp_path):
    root, pairs = planted
    done = run_cli("audit", "--unlabelled", "--data_dir", root, "--output_dir", tmp_path / "out")
    rows = list(csv.DictReader(open(tmp_path / "out" / "near_duplicates.csv")))
    found = {frozenset((row["filename1"], row["filename2"])) for row in rows}
    assert len(found & pairs) / len(pairs) >= 0.95
    assert len(found & (pairs | {KNOWN_PAIR})) / len(found) >= 0.95
    assert f"Found {len(rows)} near-duplicate pairs" in done.stdout and "in 625 images" in done.stdout
    sheets = list((tmp_path / "out" / "figures").glob("contact_sheet_*.png"))
    assert len(sheets) == -(-len(rows) // 24)
    with Image.open(sheets[0]) as sheet:
        assert sheet.size[0] > 1000


def test_similar_images_are_not_duplicates(shared_data):
    """Smooth mucosa and black corners: similar hashes and high structural similarity, but different images."""
    paths = sorted(map(str, (shared_data / "polyp_crops" / "validation").rglob("*.jpg")))
    hashes = duplicates.perceptual_hashes(paths)
    assert len(find_candidate_pairs(hashes, 10)) > 10
    assert find_near_duplicates(paths, max_distance=10) == []


def test_duplicates_are_found_between_two_sets(planted):
    root, pairs = planted
    frames = sorted(str(path) for path in root.glob("c*.jpg"))[:200]
    copies = sorted(str(path) for path in root.glob("copy_*.png"))[:50]
    found = {
        frozenset((Path(frames[pair.first]).name, Path(copies[pair.second]).name))
        for pair in find_near_duplicates(frames, copies)
    }
    expected = {pair for pair in pairs if pair <= {Path(path).name for path in [*frames, *copies]}}
    assert len(expected) == 50 and found == expected


def test_hashes_are_cached(planted, monkeypatch):
    root, _ = planted
    paths = sorted(map(str, root.glob("copy_*.png")))[:20]
    hashes = duplicates.perceptual_hashes(paths)
    monkeypatch.setattr(duplicates, "_compute_hashes", None)  # the cached hashes are used
    assert np.array_equal(duplicates.perceptual_hashes(paths), hashes)


def test_candidates_are_all_pairs_within_the_distance():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, (300, 3)).astype(np.uint64)
    expected = {}
    for one in range(300):
        for two in range(one + 1, 300):
            bits = [(int(hashes[one, v]) ^ int(hashes[two, 0])).bit_count() for v in range(3)]
            bits += [(int(hashes[two, v]) ^ int(hashes[one, 0])).bit_count() for v in range(3)]
            if min(bits) <= 22:
                expected[one, two] = min(bits)
    assert {(one, two): distance for one, two, distance in find_candidate_pairs(hashes, 22)} == expected and len(
        expected
    ) > 100


def test_similarity_of_images_without_detail():
    grey, noise = np.full((96, 96), 40, np.uint8), np.random.default_rng(0).integers(0, 255, (96, 96)).astype(np.uint8)
    assert compute_similarity(grey, grey) == (1.0, 1.0) and compute_similarity(grey, noise) == (0.0, 0.0)
    assert min(compute_similarity(noise, noise)) > 0.99


@pytest.fixture
def conflicting(toy, tmp_path):
    """The toy folders with noise images: one image in two classes, and one training image in the test split."""
    rng, root = np.random.default_rng(0), tmp_path / "images"
    for path in sorted((toy / "labelled").rglob("*.jpg")):
        layers = [Image.fromarray(rng.integers(0, 255, (n, n, 3), np.uint8)).resize((128, 128)) for n in (4, 16, 40)]
        target = root / path.relative_to(toy / "labelled")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.blend(Image.blend(layers[0], layers[1], 0.5), layers[2], 0.3).save(target)
    for source, target in (("ring/ring_000", "train/blob/also"), ("folds/folds_000", "test/folds/again")):
        (root / f"{target}.jpg").write_bytes((root / "train" / f"{source}.jpg").read_bytes())
    return root


def test_conflicting_pairs_can_be_excluded(conflicting, tmp_path, capsys):
    out = tmp_path / "audit"
    assert main(["audit", "--data_dir", str(conflicting), "--output_dir", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "1  conflicting labels" in printed and "1  across splits" in printed
    (row,) = csv.DictReader(open(out / "conflicting_labels.csv"))
    assert {row["filename1"], row["filename2"]} == {"train/ring/ring_000.jpg", "train/blob/also.jpg"}
    (row,) = csv.DictReader(open(out / "across_splits.csv"))
    assert {row["split1"], row["split2"]} == {"train", "test"}
    argv = ["prepare", "--data_dir", str(conflicting), "--on_bad_image", "skip", "--cache", "false", "--exclude_pairs"]
    assert main([*argv, str(out / "conflicting_labels.csv")]) == 0
    captured = capsys.readouterr()
    # 60 images and the copy, without the pair, and without the training image that is also in the test split.
    assert captured.out.splitlines()[4].split() == ["all", "58", "18", "19"]


@pytest.mark.parametrize(
    "argv, status, message, attributes",
    [
        (["--min_detail", "2"], 2, SettingsMessage.OUT_OF_BOUNDS, {"name": "min_detail"}),
        (["--exclude_pairs", "/absent.csv"], 1, SettingsMessage.PATH_NOT_FOUND, {"path": "/absent.csv"}),
        (["--data_dir", "/absent"], 1, SettingsMessage.PATH_NOT_FOUND, {"path": "/absent"}),
    ],
)
def test_wrong_arguments_are_reported(toy, tmp_path, capsys, argv, status, message, attributes):
    command = ["audit", "--data_dir", str(toy / "labelled"), "--output_dir", str(tmp_path / "out"), *argv]
    assert main(command) == status
    assert shows(capsys.readouterr().err, message, **attributes)


def test_pairs_of_other_datasets_are_rejected(toy, tmp_path, capsys):
    (tmp_path / "pairs.csv").write_text("filename1,filename2\nx.jpg,y.jpg\n")
    argv = ["prepare", "--data_dir", str(toy / "labelled"), "--exclude_pairs", str(tmp_path / "pairs.csv")]
    assert main(argv) == 1
    assert shows(capsys.readouterr().err, DataMessage.PAIRS_MATCH_NO_IMAGE, path=tmp_path / "pairs.csv")
    (tmp_path / "pairs.csv").write_text("a,b\n")
    assert main(argv) == 1
    assert shows(capsys.readouterr().err, DataMessage.PAIRS_COLUMNS_MISSING, columns=["filename1", "filename2"])
