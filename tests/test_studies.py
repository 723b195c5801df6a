"""The studies of docs/measured.md, on a few images."""

import csv
import re
import shutil
import sys

import pytest
from support.paths import ROOT, load_script


@pytest.fixture
def two_classes(toy, tmp_path):
    """Two classes with twenty training images and nine validation images each."""
    for split in ("train", "validation"):
        for folder in sorted((toy / "labelled" / split).iterdir())[:2]:
            shutil.copytree(folder, tmp_path / "data" / split / folder.name)
    (tmp_path / "tiny.yaml").write_text("num_train_epochs: 1\nwarmup_epochs: 0\nper_device_train_batch_size: 8\n")
    return tmp_path


def run(name, monkeypatch, *argv):
    study = load_script(f"studies/{name}")
    monkeypatch.setattr(sys, "argv", [name, *map(str, argv)])
    study.main()
    return study


@pytest.mark.run
def test_the_study_of_class_imbalance(two_classes, tiny_pth, monkeypatch, capsys):
    out = two_classes / "out"
    argv = ["--model", tiny_pth, "--data", two_classes / "data", "--out", out, "--recipe", two_classes / "tiny.yaml"]
    argv += ["--ratio", 5, "--seeds", 0, 1, "--settings", "recipe", "class-balanced sampling"]
    study = run("long_tail", monkeypatch, *argv)
    with (out / "cut_1.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    counts = [sum(row["split"] == split for row in rows) for split in ("train", "test")]
    assert counts == [24, 2 * len(list((two_classes / "data" / "validation" / rows[0]["label"]).iterdir()))]
    lines = (out / "table.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["recipe (2)", "class-balanced sampling (2)"]
    first = study.read_scores(out / "recipe-0")
    assert (
        0 <= first["rare"] <= 100
        and f"{study.read_runs(out, 'recipe')[0]['macro F1']:.6f}" == f"{first['macro F1']:.6f}"
    )
    monkeypatch.syspath_prepend(ROOT / "scripts" / "studies")
    calibrated = load_script("studies/temperature")
    monkeypatch.setattr(calibrated, "NUM_REPEATS", 2)
    monkeypatch.setattr(sys, "argv", ["temperature", str(out)])
    capsys.readouterr()
    calibrated.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["recipe (2)", "class-balanced sampling (2)"]
    assert all(re.fullmatch(r"[\d.]+ %, [\d.]+", cell.strip()) for line in lines[2:] for cell in line.split("|")[2:5])
    written = (out / "recipe-0" / "all_results.json").stat().st_mtime_ns
    run("long_tail", monkeypatch, *argv)  # runs are not repeated
    assert (out / "recipe-0" / "all_results.json").stat().st_mtime_ns == written


@pytest.mark.run
def test_the_study_of_label_errors(two_classes, tiny_pth, monkeypatch, capsys):
    out = two_classes / "out"
    argv = ["--model", tiny_pth, "--data", two_classes / "data", "--out", out, "--recipe", two_classes / "tiny.yaml"]
    run("label_audit", monkeypatch, *argv, "--folds", 2, "--fraction", 0.1)
    images = sorted((two_classes / "data").glob("*/*/*"))
    with (out / "manifest.csv").open(newline="") as file:
        wrong = [row for row in csv.DictReader(file) if row["label"] != row["file_name"].split("/")[1]]
    assert len(wrong) == round(0.1 * len(images))
    assert f"{len(wrong)} of {len(images)} labels were flipped" in capsys.readouterr().out
