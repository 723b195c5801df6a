"""Near-duplicates: planted ones are found, look-alikes are not."""

import csv
import io
import os
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from support.cli_process import run_cli

from hf_mae.cli.main import main
from hf_mae.data import duplicates
from hf_mae.data.duplicates import compute_similarity, find_candidate_pairs, find_near_duplicates

KINDS = ("re-encoded", "resized", "cropped", "brightness", "all of it")


def altered(image: Image.Image, kind: str, rng: random.Random) -> Image.Image:
    """A near-duplicate of an image, of one kind."""
    width, height = image.size
    everything = kind == "all of it"
    if kind == "cropped" or everything:
        left, top, right, bottom = (rng.uniform(0, 0.06) for _ in range(4))
        image = image.crop((int(left * width), int(top * height), int((1 - right) * width), int((1 - bottom) * height)))
    if kind == "brightness" or everything:
        image = ImageEnhance.Brightness(image).enhance(rng.choice([rng.uniform(0.7, 0.85), rng.uniform(1.15, 1.35)]))
    if kind == "resized" or everything:
        scale = rng.uniform(0.5, 1.6)
        image = image.resize((int(image.width * scale), int(image.height * scale)))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=rng.randint(30, 90))
    return Image.open(content)


@pytest.fixture(scope="module")
def planted(shared_data, tmp_path_factory):
    """The real frames, and an altered copy of every fourth: the files, and the pairs that are there."""
    root, rng, pairs = tmp_path_factory.mktemp("planted"), random.Random(0), set()
    for number, path in enumerate(sorted((shared_data / "colonoscopy_frames").glob("*.jpg"))):
        os.link(path, root / path.name) if path.stat().st_dev == root.stat().st_dev else (root / path.name).write_bytes(
            path.read_bytes()
        )
        if number % 4 == 0:
            kind = KINDS[number // 4 % len(KINDS)]
            with Image.open(path) as image:
                altered(image.convert("RGB"), kind, rng).save(root / f"copy_{path.stem}.png")
            pairs.add(frozenset((path.name, f"copy_{path.stem}.png")))
    return root, pairs


# Frames of the data set itself that are near-duplicates: looked at on the contact sheet.
KNOWN = frozenset(("cju5fydrud94708507vo6oy21.jpg", "cju7avvi51iox0817ym55y6tt.jpg"))


def test_planted_duplicates_are_found_and_nothing_else(planted, tmp_path):
    root, pairs = planted
    done = run_cli("audit", "--unlabelled", "--data_dir", root, "--output_dir", tmp_path / "out")
    rows = list(csv.DictReader(open(tmp_path / "out" / "near_duplicates.csv")))
    found = {frozenset((row["filename1"], row["filename2"])) for row in rows}
    assert len(found & pairs) / len(pairs) >= 0.95
    assert len(found & (pairs | {KNOWN})) / len(found) >= 0.95
    assert f"625 images: {len(rows)} pairs" in done.stdout
    sheets = list((tmp_path / "out").glob("contact_sheet_*.png"))
    assert len(sheets) == -(-len(rows) // 24)
    with Image.open(sheets[0]) as sheet:
        assert sheet.size[0] > 1000


def test_look_alikes_are_no_duplicates(shared_data):
    """Smooth mucosa and black corners: similar hashes, high structural similarity, and other images all the same."""
    paths = sorted(map(str, (shared_data / "polyp_crops" / "validation").rglob("*.jpg")))
    hashes = duplicates.perceptual_hashes(paths)
    assert len(find_candidate_pairs(hashes, 10)) > 10
    assert find_near_duplicates(paths, max_distance=10) == []


def test_against_other_images(planted):
    root, pairs = planted
    frames = sorted(str(path) for path in root.glob("c*.jpg"))[:200]
    copies = sorted(str(path) for path in root.glob("copy_*.png"))[:50]
    found = {
        frozenset((Path(frames[pair.first]).name, Path(copies[pair.second]).name))
        for pair in find_near_duplicates(frames, copies)
    }
    expected = {pair for pair in pairs if pair <= {Path(path).name for path in [*frames, *copies]}}
    assert len(expected) == 50 and found == expected


def test_hashes_are_kept(planted, monkeypatch):
    root, _ = planted
    paths = sorted(map(str, root.glob("copy_*.png")))[:20]
    hashes = duplicates.perceptual_hashes(paths)
    monkeypatch.setattr(duplicates, "_compute_hashes", None)  # the second time nothing is read
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


def test_empty_images():
    grey, noise = np.full((96, 96), 40, np.uint8), np.random.default_rng(0).integers(0, 255, (96, 96)).astype(np.uint8)
    assert compute_similarity(grey, grey) == (1.0, 1.0) and compute_similarity(grey, noise) == (0.0, 0.0)
    assert min(compute_similarity(noise, noise)) > 0.99


@pytest.fixture
def conflicting(toy, tmp_path):
    """The toy set's tree with mottled images, a ring that is also a blob, and a training image in the test split."""
    rng, root = np.random.default_rng(0), tmp_path / "images"
    for path in sorted((toy / "labelled").rglob("*.jpg")):
        layers = [Image.fromarray(rng.integers(0, 255, (n, n, 3), np.uint8)).resize((128, 128)) for n in (4, 16, 40)]
        target = root / path.relative_to(toy / "labelled")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.blend(Image.blend(layers[0], layers[1], 0.5), layers[2], 0.3).save(target)
    for source, target in (("ring/ring_000", "train/blob/also"), ("folds/folds_000", "test/folds/again")):
        (root / f"{target}.jpg").write_bytes((root / "train" / f"{source}.jpg").read_bytes())
    return root


def test_what_is_found_feeds_exclude_pairs(conflicting, tmp_path, capsys):
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
    # 60 and the copy, without the pair, and without the training image that stands in the test split too.
    assert captured.out.splitlines()[4].split() == ["all", "58", "18", "19"]


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--min_detail", "2"], "lie between 0 and 1"),
        (["--exclude_pairs", "/absent.csv"], "file of pairs /absent.csv does not exist"),
        (["--data_dir", "/absent"], "/absent"),
    ],
)
def test_mistakes_are_one_sentence(toy, tmp_path, capsys, argv, message):
    assert main(["audit", "--data_dir", str(toy / "labelled"), "--output_dir", str(tmp_path / "out"), *argv]) in (1, 2)
    assert message in capsys.readouterr().err


def test_pairs_of_other_files_are_refused(toy, tmp_path, capsys):
    (tmp_path / "pairs.csv").write_text("filename1,filename2\nx.jpg,y.jpg\n")
    argv = ["prepare", "--data_dir", str(toy / "labelled"), "--exclude_pairs", str(tmp_path / "pairs.csv")]
    assert main(argv) == 1
    assert "names no image of the data set" in capsys.readouterr().err
    (tmp_path / "pairs.csv").write_text("a,b\n")
    assert main(argv) == 1
    assert "lacks the column filename1, filename2" in capsys.readouterr().err
