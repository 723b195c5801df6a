"""Cross-validation: every fold and seed, resumable, with mean and standard deviation."""

import csv
import json

import numpy as np
import pytest
from conftest import run_cli

from hf_mae import load_image_folder
from hf_mae.cli import main
from hf_mae.crossval import stratified_folds
from hf_mae.errors import UsageError


def flags(tiny_pth, toy, out, *more):
    argv = ["--model_name_or_path", tiny_pth, "--data_dir", toy / "labelled" / "train", "--output_dir", out]
    argv += ["--num_train_epochs", 2, "--warmup_epochs", 1, "--per_device_train_batch_size", 20]
    return [*map(str, [*argv, "--learning_rate", 3e-3, "--disable_tqdm", "true", *more])]


def test_every_fold_and_seed_once(tiny_pth, toy, tmp_path):
    argv = flags(tiny_pth, toy, tmp_path / "cv", "--folds", 2, "--seeds", 0, 1)
    done = run_cli("crossval", *argv)
    assert "Run 4 of 4: seed 1, fold 2" in done.stderr and "over 4 runs" in done.stdout
    summary = json.loads((tmp_path / "cv" / "crossval.json").read_text())
    values = [run["macro_f1"] for run in summary["runs"]]
    assert summary["mean_and_std"]["macro_f1"]["mean"] == pytest.approx(np.mean(values))
    assert summary["mean_and_std"]["macro_f1"]["std"] == pytest.approx(np.std(values))
    for seed in (0, 1):
        rows = list(csv.DictReader(open(tmp_path / "cv" / f"predictions_pooled_seed-{seed}.csv")))
        assert len({row["file_name"] for row in rows}) == len(rows) == 60
        right = sum(row["label"] == row["prediction"] for row in rows) / 60
        assert summary["pooled"][str(seed)]["accuracy"] == pytest.approx(right)
    recipe = (tmp_path / "cv" / "seed-1_fold-2" / "recipe.yaml").read_text()
    assert "seed: 1" in recipe and "folds" not in recipe
    # What is done is skipped, what is not is made up for; the result is the same.
    (tmp_path / "cv" / "seed-1_fold-1" / "all_results.json").unlink()
    done = run_cli("crossval", *argv)
    assert done.stderr.count("is done") == 3 and "Run 3 of 4: seed 1, fold 1" in done.stderr
    again = json.loads((tmp_path / "cv" / "crossval.json").read_text())
    assert [run["macro_f1"] for run in again["runs"]] == values


def test_folds_are_stratified_and_keep_groups_together(toy):
    splits = load_image_folder(toy / "labelled")
    folds = stratified_folds(splits, 3, None)
    names = [set(fold["validation"]["file_name"]) for fold in folds]
    assert sum(map(len, names)) == len(set().union(*names)) == 78
    for fold in folds:
        assert np.ptp(np.bincount(fold["validation"]["labels"][:])) <= 1
        assert not set(fold["train"]["file_name"]) & set(fold["validation"]["file_name"])
    for fold in stratified_folds(splits, 3, r"_(\d+)\."):  # blob_003, folds_003 and ring_003 are one "patient"
        train, held_out = ({name.split("_")[-1] for name in fold[split]["file_name"]} for split in fold)
        assert train and held_out and not train & held_out


@pytest.mark.parametrize(
    "options, message",
    [
        (["--folds", "official"], "needs a --benchmark with official folds"),
        (["--folds", "many"], "takes official or a number"),
        (["--folds", "1"], "between 2 and the size of the smallest class, 20"),
        (["--folds", "2", "--group_pattern", "patient"], "needs a group in parentheses"),
        (["--folds", "2", "--group_pattern", "(patient)"], "does not match 60 files"),
        (["--folds", "2", "--group_pattern", "("], "no regular expression"),
    ],
)
def test_mistakes_are_one_sentence(tiny_pth, toy, tmp_path, capsys, options, message):
    assert main(["crossval", *flags(tiny_pth, toy, tmp_path / "cv", *options)]) == 1
    assert message in capsys.readouterr().err


def test_groups_must_match_the_pattern():
    from hf_mae.crossval import _groups

    assert _groups(["a/p1_3.jpg", "b/p2_1.jpg"], r"(p\d)_") == ["p1", "p2"]
    with pytest.raises(UsageError):
        _groups(["x.jpg"], r"(p\d)_")
