"""Cross-validation: all folds and seeds, resumable, with mean and standard deviation."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from support.cli_process import run_cli
from support.messages import raises, shows

from hf_mae import load_image_folder
from hf_mae.cli.main import main
from hf_mae.data.messages import DataMessage
from hf_mae.data.splits import check_folds, make_stratified_folds
from hf_mae.reporting.renderers.terminal import MAX_WIDTH
from hf_mae.runs.messages import RunMessage
from hf_mae.settings.messages import SettingsMessage
from hf_mae.workflows.messages import WorkflowMessage


def make_argv(tiny_pth, toy, out, *more):
    argv = ["--model_name_or_path", tiny_pth, "--data_dir", toy / "labelled" / "train", "--output_dir", out]
    argv += ["--num_train_epochs", 2, "--warmup_epochs", 1, "--per_device_train_batch_size", 20]
    return [*map(str, [*argv, "--learning_rate", 3e-3, "--disable_tqdm", "true", *more])]


def test_each_fold_and_seed_is_trained_once(tiny_pth, toy, tmp_path):
    argv = make_argv(tiny_pth, toy, tmp_path / "cv", "--folds", 2, "--seeds", 0, 1)
    done = run_cli("crossval", *argv)
    assert "Run 4 of 4: seed 1, fold 2" in done.stderr and "over 4 runs" in done.stdout
    summary = json.loads((tmp_path / "cv" / "crossval.json").read_text())["crossval"]
    values = [run["scores"]["macro_f1"] for run in summary["runs"]]
    assert summary["mean_and_std"]["macro_f1"]["mean"] == pytest.approx(np.mean(values))
    assert summary["mean_and_std"]["macro_f1"]["std"] == pytest.approx(np.std(values))
    for seed in (0, 1):
        rows = list(csv.DictReader(open(tmp_path / "cv" / f"predictions_pooled_seed-{seed}.csv")))
        assert len({row["file_name"] for row in rows}) == len(rows) == 60
        accuracy = sum(row["label"] == row["prediction"] for row in rows) / 60
        assert summary["pooled"][f"seed-{seed}"]["accuracy"] == pytest.approx(accuracy)
    recipe = (tmp_path / "cv" / "seed-1_fold-2" / "recipe.yaml").read_text()
    assert "seed: 1" in recipe and "folds" not in recipe
    # Completed runs are skipped and the missing one is trained; the result is the same.
    (tmp_path / "cv" / "seed-1_fold-1" / "all_results.json").unlink()
    done = run_cli("crossval", *argv)
    assert done.stderr.count("is already completed") == 3 and "Run 3 of 4: seed 1, fold 1" in done.stderr
    again = json.loads((tmp_path / "cv" / "crossval.json").read_text())["crossval"]
    assert [run["scores"]["macro_f1"] for run in again["runs"]] == values


def test_folds_are_stratified_and_keep_groups_together(toy):
    splits = load_image_folder(toy / "labelled")
    folds = make_stratified_folds(splits, 3)
    names = [set(fold["validation"]["file_name"]) for fold in folds]
    assert sum(map(len, names)) == len(set().union(*names)) == 78
    for fold in folds:
        assert np.ptp(np.bincount(fold["validation"]["labels"][:])) <= 1
        assert not set(fold["train"]["file_name"]) & set(fold["validation"]["file_name"])
    grouped = load_image_folder(
        toy / "labelled", group_pattern=r"_(\d+)\."
    )  # blob_003 and ring_003 are the same "patient"
    for fold in make_stratified_folds(grouped, 3):
        train, held_out = (set(fold[split]["group"]) for split in fold)
        assert train and held_out and not train & held_out


@pytest.mark.parametrize(
    "options, status, message, attributes",
    [
        (["--folds", "official"], 1, DataMessage.NO_OFFICIAL_FOLDS, {}),
        (["--folds", "many"], 2, SettingsMessage.INVALID_FOLDS, {"value": "many"}),
        (["--folds", "1"], 1, DataMessage.TOO_MANY_FOLDS, {"smallest": 20}),
        (["--folds", "2", "--group_pattern", "patient"], 1, DataMessage.GROUP_PATTERN_WITHOUT_GROUP, {}),
        (["--folds", "2", "--group_pattern", "(patient)"], 1, DataMessage.GROUP_PATTERN_UNMATCHED, {"count": 60}),
        (["--folds", "2", "--group_pattern", "("], 1, DataMessage.GROUP_PATTERN_INVALID, {"pattern": "("}),
        (["--folds", "9", "--group_pattern", r"_00([0-4])|_0([0-9])"], 1, DataMessage.GROUP_PATTERN_UNMATCHED, {}),
        (["--folds", "9", "--group_pattern", r"([a-z]+)_"], 1, DataMessage.MORE_FOLDS_THAN_GROUPS, {"count": 3}),
        (
            ["--folds", "2", "--group_column", "patient"],
            1,
            DataMessage.GROUP_COLUMN_WITHOUT_MANIFEST,
            {"column": "patient"},
        ),
    ],
)
def test_invalid_options_are_rejected(tiny_pth, toy, tmp_path, capsys, options, status, message, attributes):
    assert main(["crossval", *make_argv(tiny_pth, toy, tmp_path / "cv", *options)]) == status
    assert shows(capsys.readouterr().err, message, **attributes)


def test_each_fold_needs_training_images_of_each_class(toy):
    splits = load_image_folder(toy / "labelled", group_pattern=r"(ring|blob_\d+|folds_\d+)")
    with raises(DataMessage.FOLD_WITHOUT_TRAINING_IMAGES, names=["ring"]):
        check_folds(make_stratified_folds(splits, 2))


def test_completed_runs_with_other_settings_are_rejected(tiny_pth, toy, tmp_path, capsys):
    argv = make_argv(tiny_pth, toy, tmp_path / "cv", "--folds", 2, "--max_steps", 1)
    assert main(["crossval", *argv]) == 0
    capsys.readouterr()
    assert main(["crossval", *argv, "--layer_decay", "0.65"]) == 1
    differences = "layer_decay: default then, 0.65 now"
    assert shows(capsys.readouterr().err, WorkflowMessage.CROSSVAL_SETTINGS_DIFFER, differences=differences)


def test_the_label_efficiency_curve(tiny_pth, toy, real_figures, tmp_path):
    out = tmp_path / "cv"
    argv = make_argv(tiny_pth, toy, out, "--folds", 2, "--train_fractions", 0.2, 1.0, "--seeds", 0, 1)
    done = run_cli("crossval", *argv, "--max_steps", 2)
    assert "Run 8 of 8: 100 % of the labels, seed 1, fold 2" in done.stderr and "minutes left" in done.stderr
    assert "20 % of the labels" in done.stdout
    assert max(map(len, done.stdout.splitlines()[:10])) <= MAX_WIDTH
    small, full = json.loads((out / "crossval.json").read_text())["crossval"]["label_efficiency"]
    assert (small["images"], full["images"]) == (6, 30) and len(small["macro_f1"]["values"]) == 4
    assert (out / "figures" / "label_efficiency.png").stat().st_size > 5000
    assert (out / "figures" / "label_efficiency.pdf").is_file()
    # Each fold keeps all its validation images, whatever the fraction of training images.
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
    argv = make_argv(tiny_pth, toy, tmp_path / "cv", *argv)
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


def test_completed_runs_on_other_images_are_rejected(tiny_pth, toy, tmp_path):
    data = shutil.copytree(toy / "labelled", tmp_path / "data")
    argv = make_argv(tiny_pth, toy, tmp_path / "cv", "--folds", 3, "--num_train_epochs", 1)
    argv[argv.index("--data_dir") + 1] = str(data)
    done = run_cli("crossval", *argv)
    assert "The test split (18 images) is not used" in done.stderr
    shutil.copytree(data, tmp_path / "moved")  # the same images in another folder
    argv[argv.index("--data_dir") + 1] = str(tmp_path / "moved")
    assert run_cli("crossval", *argv).stderr.count("is already completed") == 3
    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "moved" / "train" / "ring" / "new.jpg")
    done = run_cli("crossval", *argv, status=1)
    assert shows(done.stderr, RunMessage.DATA_OPTIONS_CHANGED)
