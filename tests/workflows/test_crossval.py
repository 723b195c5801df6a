"""Cross-validation: every fold and seed, resumable, with mean and standard deviation."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from support.cli_process import run_cli

from hf_mae import load_image_folder
from hf_mae.cli.main import main
from hf_mae.data.folds import check_folds, make_stratified_folds
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
        assert summary["pooled"][f"seed-{seed}"]["accuracy"] == pytest.approx(right)
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
    folds = make_stratified_folds(splits, 3)
    names = [set(fold["validation"]["file_name"]) for fold in folds]
    assert sum(map(len, names)) == len(set().union(*names)) == 78
    for fold in folds:
        assert np.ptp(np.bincount(fold["validation"]["labels"][:])) <= 1
        assert not set(fold["train"]["file_name"]) & set(fold["validation"]["file_name"])
    grouped = load_image_folder(toy / "labelled", group_pattern=r"_(\d+)\.")  # blob_003 and ring_003 are one "patient"
    for fold in make_stratified_folds(grouped, 3):
        train, held_out = (set(fold[split]["group"]) for split in fold)
        assert train and held_out and not train & held_out


@pytest.mark.parametrize(
    "options, message, status",
    [
        (["--folds", "official"], "needs a validation split", 1),
        (["--folds", "many"], "takes official or a number", 2),
        (["--folds", "1"], "between 2 and the size of the smallest class, 20", 1),
        (["--folds", "2", "--group_pattern", "patient"], "needs a group in parentheses", 1),
        (["--folds", "2", "--group_pattern", "(patient)"], "does not match 60 files", 1),
        (["--folds", "2", "--group_pattern", "("], "no regular expression", 1),
        (["--folds", "9", "--group_pattern", r"_00([0-4])|_0([0-9])"], "does not match", 1),
        (["--folds", "9", "--group_pattern", r"([a-z]+)_"], "more than there are patients or videos (3)", 1),
        (["--folds", "2", "--group_column", "patient"], "is a column of a manifest", 1),
    ],
)
def test_mistakes_are_one_sentence(tiny_pth, toy, tmp_path, capsys, options, message, status):
    assert main(["crossval", *flags(tiny_pth, toy, tmp_path / "cv", *options)]) == status
    assert message in capsys.readouterr().err


def test_a_class_of_one_patient_cannot_be_learnt_in_every_fold(toy):
    splits = load_image_folder(toy / "labelled", group_pattern=r"(ring|blob_\d+|folds_\d+)")
    with pytest.raises(UsageError, match="has no training image of ring: all its images are held out together"):
        check_folds(make_stratified_folds(splits, 2))


def test_a_finished_run_of_other_settings_is_not_taken_for_this_one(tiny_pth, toy, tmp_path, capsys):
    argv = flags(tiny_pth, toy, tmp_path / "cv", "--folds", 2, "--max_steps", 1)
    assert main(["crossval", *argv]) == 0
    capsys.readouterr()
    assert main(["crossval", *argv, "--layer_decay", "0.65"]) == 1
    assert "finished run of other settings (layer_decay: default then, 0.65 now)" in capsys.readouterr().err


def test_the_curve_over_shares_of_the_labels(tiny_pth, toy, pictures, tmp_path):
    out = tmp_path / "cv"
    argv = flags(tiny_pth, toy, out, "--folds", 2, "--train_fractions", 0.2, 1.0, "--seeds", 0, 1)
    done = run_cli("crossval", *argv, "--max_steps", 2)
    assert "Run 8 of 8: 100 % of the labels, seed 1, fold 2" in done.stderr and "minutes left" in done.stderr
    assert "20 % of the labels (6 images):" in done.stdout
    small, whole = json.loads((out / "crossval.json").read_text())["label_efficiency"]
    assert (small["images"], whole["images"]) == (6, 30) and len(small["macro_f1"]["values"]) == 4
    assert (out / "label_efficiency.png").stat().st_size > 5000 and (out / "label_efficiency.pdf").is_file()
    # Every fold keeps all its validation images, whatever is trained on.
    for fraction in ("0.2", "1"):
        rows = list(csv.DictReader(open(out / f"fraction-{fraction}_seed-0_fold-1" / "predictions_validation.csv")))
        assert len(rows) == 30


def test_a_group_column_reaches_the_predictions(tiny_pth, toy, tmp_path):
    rows = ["file_name,label,patient"]
    for path in sorted((toy / "labelled" / "train").glob("*/*.jpg")):
        rows.append(f"{path.relative_to(toy / 'labelled')},{path.parent.name},p{int(path.stem[-3:]) % 5}")
    manifest = tmp_path / "images.csv"
    manifest.write_text("\n".join(rows))
    argv = ["--manifest", manifest, "--group_column", "patient", "--folds", 2, "--max_steps", 1]
    argv = flags(tiny_pth, toy, tmp_path / "cv", *argv)
    argv[argv.index("--data_dir") + 1] = str(toy / "labelled")
    run_cli("crossval", *argv)
    folds = [
        {
            row["group"]
            for row in csv.DictReader(open(tmp_path / "cv" / f"seed-0_fold-{k}" / "predictions_validation.csv"))
        }
        for k in (1, 2)
    ]
    assert folds[0] | folds[1] == {f"p{k}" for k in range(5)} and not folds[0] & folds[1]


def test_runs_on_other_images_are_not_counted(tiny_pth, toy, tmp_path):
    data = shutil.copytree(toy / "labelled", tmp_path / "data")
    argv = flags(tiny_pth, toy, tmp_path / "cv", "--folds", 3, "--num_train_epochs", 1)
    argv[argv.index("--data_dir") + 1] = str(data)
    done = run_cli("crossval", *argv)
    assert "The test split (18 images) is left out" in done.stderr
    shutil.copytree(data, tmp_path / "moved")  # the same images in another place are the same
    argv[argv.index("--data_dir") + 1] = str(tmp_path / "moved")
    assert run_cli("crossval", *argv).stderr.count("is done") == 3
    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "moved" / "train" / "ring" / "new.jpg")
    done = run_cli("crossval", *argv, status=1)
    assert "holds a run on other images" in done.stderr
