"""Cross-validation: all folds and seeds, resumable, with mean and standard deviation."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score
from sklearn.model_selection import LeaveOneGroupOut
from support.cli_process import run_cli
from support.messages import raises, shows

from hf_mae import compare, load_image_folder
from hf_mae.cli.main import main
from hf_mae.data.messages import DataMessage
from hf_mae.data.sources.split_loading import read_centres, read_splits
from hf_mae.data.splits import check_folds, make_centre_folds, make_stratified_folds
from hf_mae.reporting.renderers.terminal import MAX_WIDTH
from hf_mae.runs.crossval import summarize_centres
from hf_mae.runs.messages import RunMessage
from hf_mae.runs.predictions import read_prediction_table, write_predictions
from hf_mae.runs.record import CROSSVAL, CrossvalRun
from hf_mae.runs.record_io import read_record
from hf_mae.settings.data import DataSourceArguments
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


def write_centres(toy, path, centre=lambda number, label: "ABC"[number % 3]):
    """A manifest of the toy training images with a centre and a patient of each."""
    rows = ["file_name,label,centre,group"]
    for image in sorted((toy / "labelled" / "train").glob("*/*.jpg")):
        number, label = int(image.stem[-3:]), image.parent.name
        name = centre(number, label)
        rows.append(f"{image.relative_to(toy / 'labelled')},{label},{name},{name}_{label}_{number // 3 % 4}")
    path.write_text("\n".join(rows))
    return path


def centre_argv(tiny_pth, toy, out, manifest, *more):
    argv = make_argv(tiny_pth, toy, out, "--manifest", manifest, "--folds", "each:centre", "--max_steps", 1, *more)
    argv[argv.index("--data_dir") + 1] = str(toy / "labelled")
    return argv


def test_each_centre_is_left_out_once_and_the_epoch_is_selected_on_the_others(tiny_pth, toy, tmp_path, capsys):
    out, manifest = tmp_path / "cv", write_centres(toy, tmp_path / "images.csv", lambda number, label: "AB"[number % 2])
    argv = centre_argv(tiny_pth, toy, out, manifest, "--random_folds", "--seeds", 0, 1)
    assert main(["crossval", *argv]) == 0
    printed = capsys.readouterr().out
    summary = read_record(out, CROSSVAL).crossval
    centres = summary.by_centre
    assert [centre.name for centre in centres.centres] == ["A", "B"] and centres.selection_fraction == 0.1
    assert summary.folds == "each:centre" and {run.selection_split for run in summary.runs} == {"selection"}
    tables = {}
    for centre in centres.centres:
        folders = [out / f"seed-{seed}_fold-{centre.fold}" for seed in (0, 1)]
        tables[centre.name] = [read_prediction_table(folder, "validation") for folder in folders]
        selection = read_prediction_table(folders[0], "selection")
        assert {name.split("_")[0] for name in tables[centre.name][0].groups} == {centre.name}
        assert not {name for name in selection.groups if name.startswith(centre.name)} and len(selection.labels) > 0
        values = [f1_score(table.labels, table.predicted, average="macro") for table in tables[centre.name]]
        assert centre.scores["macro_f1"].value == pytest.approx(np.mean(values))
        assert centre.scores["macro_f1"].interval and centre.images == len(tables[centre.name][0].labels)
    by_centre = [centre.scores["accuracy"].value for centre in centres.centres]
    assert centres.mean["accuracy"].value == pytest.approx(np.mean(by_centre))
    assert centres.worst_centre("accuracy").scores["accuracy"].value == min(by_centre)
    pooled = [np.mean(np.concatenate([t[run].labels == t[run].predicted for t in tables.values()])) for run in (0, 1)]
    assert centres.pooled["accuracy"].value == pytest.approx(np.mean(pooled))
    others = read_record(out / "random_folds", CROSSVAL).crossval
    random_accuracy = np.mean([scores["accuracy"] for scores in others.pooled.values()])
    assert others.folds == "2" and centres.gap["accuracy"].value == pytest.approx(np.mean(pooled) - random_accuracy)
    assert "mean of the centres" in printed and "minus random folds" in printed
    written = (out / "seed-0_fold-1" / "all_results.json").stat().st_mtime_ns
    assert main(["crossval", *argv]) == 0  # nothing is trained again
    assert (out / "seed-0_fold-1" / "all_results.json").stat().st_mtime_ns == written
    comparison = compare(out)
    (row,) = [*comparison.tables[0].rows, *comparison.tables[0].not_comparable]
    assert row.scores["macro_f1"].value == pytest.approx(100 * centres.mean["macro_f1"].value)
    assert row.diagnostic_accuracy.centres == centres and "| A " in comparison.summary()
    assert main(["report", str(out), "--operating_point", "youden", "--output_dir", str(tmp_path / "report")]) == 0
    assert (tmp_path / "report" / "figures" / "centres.png").is_file()
    study = (tmp_path / "report" / "study.md").read_text()
    assert study.count("was left out in turn") == 1
    assert "Each centre (A, B) was left out in turn" in study and "10 % of the training images" in study
    assert "Each of 2 values of centre was left out in turn" in comparison.summary()


@pytest.mark.parametrize("centre", [lambda number: f"centre {number % 4}", lambda number: (2, 10, 1, 33)[number % 4]])
def test_the_folds_of_centres_are_those_of_sklearn(centre, toy, tmp_path):
    manifest = write_centres(toy, tmp_path / "images.csv", lambda number, label: centre(number))
    options = DataSourceArguments(data_dir=str(toy / "labelled"), manifest=str(manifest))
    splits, centres = read_splits(options), read_centres(options, "centre")
    folds = make_centre_folds(splits, centres, "centre")
    names = np.array(splits["train"]["file_name"][:])
    groups = np.array([int(value) if value.isdecimal() else value for value in map(centres.get, names)])
    expected = list(LeaveOneGroupOut().split(names, groups=groups))
    assert len(folds) == len(expected) == 4
    for fold, (train, held_out) in zip(folds.values(), expected):
        assert fold["train"]["file_name"][:] == names[train].tolist()
        assert fold["validation"]["file_name"][:] == names[held_out].tolist()


def test_a_centre_without_a_class_is_scored_on_the_classes_that_it_has(tmp_path):
    """Its mean over classes leaves out the class, although the model predicts it."""
    runs = [CrossvalRun(1.0, 0, fold, False) for fold in (1, 2)]
    labels = {1: ["a", "a", "b", "b", "c", "c"], 2: ["a", "a", "a", "b", "b", "b"]}
    predictions = {1: ["a", "b", "b", "b", "c", "c"], 2: ["a", "a", "c", "b", "b", "b"]}
    names = ["a", "b", "c"]
    for run in runs:
        ids = [np.array([names.index(name) for name in values[run.fold]]) for values in (labels, predictions)]
        files = [f"{run.fold}_{number}.png" for number in range(6)]
        folder = tmp_path / run.folder
        folder.mkdir()
        write_predictions(folder, "validation", files, np.eye(3)[ids[1]], ids[0], names, [])
    summary = summarize_centres(tmp_path, "centre", ["A", "B"], runs, False, 0.1)
    first, second = summary.centres
    assert (first.absent, second.absent) == ([], ["c"]) and second.patients is None
    assert second.scores["macro_recall"].value == pytest.approx((2 / 3 + 1) / 2)
    assert summary.mean["macro_recall"].value == pytest.approx(((0.5 + 1 + 1) / 3 + (2 / 3 + 1) / 2) / 2)
    assert summary.pooled["accuracy"].value == pytest.approx(10 / 12) and summary.gap is None


@pytest.mark.parametrize(
    "centre, more, message, attributes",
    [
        (None, ["--folds", "each:hospital"], DataMessage.COLUMNS_MISSING, {"columns": ["hospital"]}),
        (lambda number, label: "A", [], DataMessage.ONE_CENTRE, {"name": "A"}),
        (lambda number, label: label, [], DataMessage.FOLD_WITHOUT_TRAINING_IMAGES, {"fold": "blob"}),
        (lambda number, label: "AB"[number % 2] if number else "", [], DataMessage.MANIFEST_VALUE_MISSING, {}),
        (lambda number, label: ["A", "a", "B"][number % 3], [], DataMessage.CLASS_NAMES_SIMILAR, {}),
        (None, ["--group_pattern", r"(\d)\."], DataMessage.PATIENTS_IN_TWO_CENTRES, {"count": 10}),
        (None, ["--selection_fraction", "0.01"], DataMessage.TOO_FEW_GROUPS, {}),
        (lambda number, label: f"{label}{number}", ["--random_folds"], DataMessage.TOO_MANY_FOLDS, {"smallest": 20}),
        (None, ["--folds", "each:"], SettingsMessage.INVALID_FOLDS, {}),
        (None, ["--folds", "3", "--random_folds"], SettingsMessage.RANDOM_FOLDS_WITHOUT_CENTRES, {}),
        (None, ["--benchmark", "limuc-4"], SettingsMessage.CENTRES_WITH_BENCHMARK, {}),
    ],
)
def test_columns_that_are_not_centres_are_rejected(centre, more, message, attributes, tiny_pth, toy, tmp_path, capsys):
    manifest = write_centres(toy, tmp_path / "images.csv", **({"centre": centre} if centre else {}))
    argv = centre_argv(tiny_pth, toy, tmp_path / "cv", manifest, *more)
    if "--benchmark" in more:
        del argv[argv.index("--manifest") : argv.index("--manifest") + 2]
    assert main(["crossval", *argv]) != 0
    assert shows(capsys.readouterr().err, message, **attributes)


def test_centres_need_a_manifest(tiny_pth, toy, tmp_path, capsys):
    assert main(["crossval", *make_argv(tiny_pth, toy, tmp_path / "cv", "--folds", "each:centre")]) == 1
    assert shows(capsys.readouterr().err, DataMessage.CENTRES_NEED_A_MANIFEST, column="centre")
