"""The report: our rows and the published rows, with intervals and tests; rows that are not comparable are separate."""

import csv
import json
import re
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.cli_process import run_cli
from support.messages import raises, shows
from support.records import ENVIRONMENT
from support.skeletons import list_official_split_files

import hf_mae
from hf_mae.cli.main import main
from hf_mae.errors import UsageError
from hf_mae.evaluation.messages import EvaluationMessage
from hf_mae.evaluation.metrics import headline_metric_names
from hf_mae.evaluation.prediction_table import Predictions
from hf_mae.evaluation.significance import corrected_resampled_test, holm
from hf_mae.reporting.annotators import compute_run_agreement
from hf_mae.reporting.build_report import build_report_document
from hf_mae.reporting.messages import ReportingMessage
from hf_mae.reporting.renderers import latex, markdown
from hf_mae.reporting.report import compare, write_report
from hf_mae.reporting.results_tables import build_results_tables, read_published_rows
from hf_mae.reporting.run_sentences import NOTE_TEXTS, describe_note
from hf_mae.reporting.split_results import write_split_results
from hf_mae.reporting.text_templates import report_text
from hf_mae.runs.completed_run import CompletedRun, NoteCode
from hf_mae.runs.crossval import pool_predictions
from hf_mae.runs.load_run import load_run
from hf_mae.runs.messages import RunMessage
from hf_mae.runs.record import DataSource, RunRecord, Selection, SelectionRule
from hf_mae.runs.record_io import write_record
from hf_mae.settings.benchmarks import BENCHMARKS
from hf_mae.settings.messages import SettingsMessage
from hf_mae.settings.metrics import METRICS

SELECTED_ON_EVAL_TEXT = NOTE_TEXTS[NoteCode.SELECTED_ON_EVAL_SPLIT]
SOURCE = {"data_dir": "images", "benchmark": None, "fold": 1, "train_fraction": 1.0, "selection_fraction": 0.0}


def write_and_summarize(paths, folder, **options):
    comparison = compare(paths, **options)
    write_report(comparison, folder)
    return comparison.summary()


def write_run(
    folder, right, *, seed=0, shift=0, images=120, groups=None, chosen_on="validation", source=SOURCE, sizes=None
):
    """Writes the output folder of a run whose predictions are correct with the probability `right`."""
    folder.mkdir(parents=True)
    names, rng, labels = ["blob", "folds", "ring"], np.random.default_rng(seed), (np.arange(images) + shift) % 3
    predicted = np.where(rng.random(images) < right, labels, (labels + 1) % 3)
    logits = np.eye(3)[predicted] * 2 + rng.normal(0, 0.1, (images, 3))
    files = SimpleNamespace(file_names=[f"{i}.jpg" for i in range(images)], groups=groups)
    scores = write_split_results(folder, "validation", files, logits, labels, names)
    record = RunRecord(
        kind="finetune",
        base="mae.pth",
        data=DataSource(**source),
        images=sizes or {"train": 9, "validation": images},
        environment=ENVIRONMENT,
        classes=names,
        scores={"validation": scores},
        selection=Selection(SelectionRule.BEST_EPOCH, selection_split=chosen_on),
    )
    write_record(record, folder)
    return scores


def test_two_runs_on_the_same_images(tmp_path, capsys):
    write_run(tmp_path / "poor", 0.6, seed=1)
    scores = write_run(tmp_path / "good", 0.95, seed=2, chosen_on="selection")
    assert main(["report", str(tmp_path / "poor"), str(tmp_path / "good"), "--output_dir", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("| **")]
    assert [row.split("|")[1].strip() for row in rows] == ["**good**", "**poor** (a)"]
    assert f"(a) {SELECTED_ON_EVAL_TEXT}" in printed
    report = json.loads((tmp_path / "out" / "report.json").read_text())["tables"][0]
    best = report["rows"][0]
    for name in headline_metric_names(False):
        assert best["scores"][name]["value"] == pytest.approx(100 * scores[name])
        low, high = best["scores"][name]["interval"]
        assert low <= 100 * scores[name] <= high and 1 < high - low < 30
    (pair,) = report["differences"]
    assert pair["mcnemar"]["p_value"] < 0.001 and pair["images"] == 120
    names = ["macro_f1", "accuracy", "mcc", "roc_auc", "average_precision", "brier", "log_loss"]
    assert [entry["score"] for entry in report["comparisons"]] == names
    for entry in report["comparisons"]:
        assert (entry["first"], entry["second"], entry["units"]) == ("poor", "good", "images")
        assert (entry["low"] if METRICS[entry["score"]].greater_is_better else -entry["high"]) > 0
        assert entry["p_value"] <= entry["p_adjusted"] < 0.001 * 7
        assert entry["test"] == ("McNemar, exact" if entry["score"] == "accuracy" else "permutation within images")
    assert "| poor | good | accuracy | +" in printed and "images are treated as independent" in printed


def test_runs_on_the_same_patients_are_compared_by_patient(tmp_path):
    groups = [f"p{i // 12}" for i in range(120)]
    for name, right in (("a", 0.6), ("b", 0.75), ("c & d", 0.9)):
        write_run(tmp_path / name, right, seed=len(name), groups=groups)
    text = write_and_summarize([tmp_path / name for name in ("a", "b", "c & d")], tmp_path / "out")
    (table,) = json.loads((tmp_path / "out" / "report.json").read_text())["tables"]
    found = table["comparisons"]
    assert len(found) == 21 and {(entry["units"], entry["test"]) for entry in found} == {
        ("groups", "permutation within groups")
    }
    assert [entry["p_adjusted"] for entry in found] == holm([entry["p_value"] for entry in found])
    assert "the permutation test exchanges complete ones" in text and "McNemar" not in text
    assert (tmp_path / "out" / "report.tex").read_text().count(r"c \& d & ") > 3


def test_all_formats_of_a_report_have_the_same_numbers(tmp_path):
    for name, right in (("a", 0.6), ("b", 0.9)):
        write_run(tmp_path / name, right)
    found = hf_mae.compare([tmp_path / "a", tmp_path / "b"])
    assert found.summary() == write_and_summarize([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == json.loads(json.dumps(found.to_dict()))
    assert found.to_latex() == (tmp_path / "out" / "report.tex").read_text()
    (table,) = found.tables
    best = table.rows[0]
    assert best.method == "b" and best.scores["mcc"].value == 100 * found.runs[1].scores()["mcc"]["mean"]
    assert table.comparisons[0]["difference"] == pytest.approx(
        found.runs[1].scores()["macro_f1"]["mean"] - found.runs[0].scores()["macro_f1"]["mean"]
    )


def make_crossval_run(name, seed, right, shift=0):
    """A cross-validation with three folds and two seeds."""
    rng = np.random.default_rng(seed)
    folds = []
    for _ in range(3):
        labels = np.arange(60) % 3
        folds.append(Predictions(labels, np.where(rng.random((2, 60)) < right, labels, (labels + 1) % 3), 3))
    files = [[f"{60 * fold + i - shift * fold}.jpg" for i in range(60)] for fold in range(3)]
    return CompletedRun(
        name, Path(name), "mine", "validation", None, "x", ["a", "b", "c"], folds, files, False, num_training_images=120
    )


def test_cross_validations_are_also_compared_by_fold():
    runs = [make_crossval_run("one", 1, 0.6), make_crossval_run("two", 2, 0.8)]
    (table,) = build_results_tables(runs)
    by_score = {entry["score"]: entry for entry in table.comparisons}
    right = [np.array([f.predicted == f.labels for f in run.folds]).mean(-1).ravel() for run in runs]
    expected = corrected_resampled_test(list(right[1] - right[0]), 60, 120)
    assert by_score["accuracy"]["corrected_resampled"] == pytest.approx(expected)
    assert by_score["accuracy"]["test"] == "permutation within images"  # two seeds, so not McNemar
    text = markdown.render(build_report_document([table]))
    assert "Folds share training images" in text and "over folds, corrected: p 0.0" in text
    assert (
        "Folds share training images" in latex.render(build_report_document([table]))
        and "Some images are in several folds" not in text
    )


def test_results_on_two_splits_of_the_same_images_are_shown_together():
    """The halves of Kvasir-Capsule share videos; results on a split by video are shown with the official ones."""
    runs = []
    for number, data in enumerate(("kvasir-capsule-11", "kvasir-capsule-11-by-video")):
        run = make_crossval_run(f"run {number}", number, 0.6)
        run.data = data
        runs.append(run)
    text = markdown.render(build_report_document(build_results_tables(runs)))
    section = text.split("## kvasir-capsule-11 and kvasir-capsule-11-by-video")[1]
    by_name = {name: BENCHMARKS[name] for name in ("kvasir-capsule-11", "kvasir-capsule-11-by-video")}
    assert by_name["kvasir-capsule-11"].limitations in section and "7 of 43" in section
    assert by_name["kvasir-capsule-11-by-video"].guarantees in section
    rows = [line for line in section.splitlines() if line.startswith("| run")]
    assert len(rows) == 2 and "official 2 folds" in rows[0] and "by video" in rows[1]
    alone = markdown.render(build_report_document(build_results_tables(runs[:1])))
    assert "and kvasir-capsule-11-by-video" not in alone


def test_folds_that_share_images_are_not_pooled(tmp_path):
    (table,) = build_results_tables([make_crossval_run("one", 1, 0.6, shift=10)])
    assert report_text("repeated_images") in markdown.render(build_report_document([table]))
    for fold, names in enumerate((["a.jpg", "b.jpg"], ["b.jpg", "c.jpg"])):
        lines = ["file_name,label,prediction,score,score:x,score:y", *(f"{name},x,x,0.9,0.9,0.1" for name in names)]
        (tmp_path / str(fold)).mkdir()
        (tmp_path / str(fold) / "predictions_validation.csv").write_text("\n".join(lines) + "\n")
    rows, scores = pool_predictions([tmp_path / "0", tmp_path / "1"], ["x", "y"])
    assert len(rows) == 4 and scores is None


@pytest.mark.parametrize("changes, different", [({"images": 90}, "images"), ({"shift": 1}, "labels")])
def test_runs_on_other_data_are_not_compared(tmp_path, changes, different):
    write_run(tmp_path / "a", 0.8)
    write_run(tmp_path / "b", 0.8, **changes)
    text = write_and_summarize([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert f"not compared, because they were evaluated on different {different}" in text


def test_intervals_use_patients_if_they_are_known(tmp_path):
    write_run(tmp_path / "images", 0.8)
    write_run(tmp_path / "patients", 0.8, groups=[f"p{i // 12}" for i in range(120)])
    by_image, by_patient = (load_run(tmp_path / name) for name in ("images", "patients"))
    assert by_patient.folds[0].groups is not None and by_image.folds[0].groups is None
    assert by_patient.scores()["accuracy"]["mean"] == by_image.scores()["accuracy"]["mean"]
    assert by_patient.scores()["accuracy"]["interval"] != by_image.scores()["accuracy"]["interval"]


@pytest.mark.parametrize(
    "source, sizes, ranked, note",
    [
        ({}, {"train": 5235, "validation": 5244}, True, "Fold 1 only."),
        ({"fold": 2}, {"train": 5244, "validation": 5235}, True, "Fold 2 only."),
        ({}, {"train": 4188, "selection": 1047, "validation": 5244}, True, "Fold 1 only."),
        ({}, {"train": 5235, "validation": 5000}, False, "not those of the published split"),
        ({"train_fraction": 0.1}, {"train": 523, "validation": 5244}, False, "Trained on 10 % of the labels."),
    ],
)
def test_only_runs_on_the_published_split_are_ranked(tmp_path, source, sizes, ranked, note):
    write_run(tmp_path / "run", 0.8, source=SOURCE | {"benchmark": "hyperkvasir-16"} | source, sizes=sizes)
    (table,) = build_results_tables([load_run(tmp_path / "run")])
    ours = [row for row in table.rows if row.ours]
    assert bool(ours) == ranked
    assert any(note in text for row in [*table.rows, *table.not_comparable] if row.ours for text in row.notes)
    assert any(row.ours for row in table.not_comparable) != ranked


def test_the_quality_exclusion_has_its_own_table(tmp_path):
    source = SOURCE | {"benchmark": "hyperkvasir-16", "exclude_pairs": "similarities.csv"}
    write_run(tmp_path / "run", 0.8, source=source, sizes={"train": 5111, "validation": 5126})
    (table,) = build_results_tables([load_run(tmp_path / "run")])
    assert [row.method for row in table.rows] == ["ViT-L MAE + quality", "run"]


def test_published_rows_that_are_not_comparable_are_separate():
    (gastrovision,), (hyperkvasir,) = (
        build_results_tables([], "gastrovision-22"),
        build_results_tables([], "hyperkvasir-23"),
    )
    assert [row.scores["macro_f1"].value for row in gastrovision.rows] == [77.40, 75.72, 70.32, 65.04, 38.65]
    first = next(row for row in gastrovision.not_comparable if row.method == "ViT-L MAE (first printed)")
    assert "a macro F1 cannot exceed the mean of macro precision and macro recall" in first.notes[0]
    assert {"DenseNet-201 + Swin"} < {row.method for row in gastrovision.not_comparable}
    assert {"MobileViT ensemble", "ViT-B/16-384 + TTA", "ViT-L MAE + quality"} == {
        r.method for r in hyperkvasir.not_comparable
    }
    text = markdown.render(build_report_document([hyperkvasir]))
    best = next(line for line in text.splitlines() if line.startswith("| ViT-L MAE (a) | endoscopy MAE"))
    assert "| 67.96 ± 2.93 | **66.41 ± 0.41** | **65.73 ± 0.39** | **91.00 ± 0.04** |" in best
    assert "| 69 | 63 | 64 | 91.98 |  |" in text  # as printed, with its decimals


def test_the_published_rows_are_complete(shared_data):
    published = list(csv.DictReader(open(shared_data.parent / "published" / "results.csv")))
    names = [*BENCHMARKS, *(name.rsplit("-", 1)[0] for name in BENCHMARKS), "imagenet-1k"]
    for row in (row for row in published if row["benchmark"] in names):
        ours = [one for name in [*BENCHMARKS, "imagenet-1k"] for one in read_published_rows(name)]
        keys = ("method", "source", "initialisation")
        same = [one for one in ours if [getattr(one, key) for key in keys] == [row[key] for key in keys]]
        names = headline_metric_names(False)
        expected = [row[name] for name in names]
        (first, *_) = [one for one in same if [one.scores.get(name, "") for name in names] == expected]
        assert re.findall(r"\d[\d.]*", first.note) == re.findall(r"\d[\d.]*", row["note"])  # the wording may differ


def test_latex_is_well_formed(tmp_path):
    write_run(tmp_path / "my_run & more", 0.8)
    text = latex.render(
        build_report_document(build_results_tables([load_run(tmp_path / "my_run & more")], "gastrovision-22"))
    )
    assert text.count("{") == text.count("}") and r"\textbf{my\_run \& more}" in text and "±" not in text
    tabulars = re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, flags=re.DOTALL)
    assert len(tabulars) == 6 and "begin{longtable}" not in text
    for columns, body in tabulars:
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(rows) > 1 and {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(columns) - 1}


def test_a_selection_split_makes_the_validation_scores_unbiased(tiny_pth, toy, tmp_path):
    """--selection_fraction: the epoch is selected on held-out training images, not on the validation images."""
    argv = ["finetune", "--model_name_or_path", tiny_pth, "--data_dir", toy / "labelled", "--num_train_epochs", 2]
    argv += [
        "--warmup_epochs",
        1,
        "--per_device_train_batch_size",
        20,
        "--disable_tqdm",
        "true",
        "--learning_rate",
        3e-3,
    ]
    for name, more in (("biased", []), ("unbiased", ["--selection_fraction", 0.2])):
        assert main([*map(str, [*argv, "--output_dir", tmp_path / name, *more])]) == 0
    results = json.loads((tmp_path / "unbiased" / "all_results.json").read_text())
    assert results["images"] == {"train": 48, "validation": 18, "test": 18, "selection": 12}
    assert results["selection"]["selection_split"] == "selection"
    assert results["scores"]["selection"]["num_images"] == 12
    state = json.loads((tmp_path / "unbiased" / "trainer_state.json").read_text())
    assert state["best_metric"] == pytest.approx(results["scores"]["selection"]["macro_f1"])
    text = write_and_summarize([tmp_path / "biased", tmp_path / "unbiased"], tmp_path / "out", split="validation")
    (note,) = re.findall(r"^- \((\w)\) The epoch was selected on the evaluated images", text, flags=re.MULTILINE)
    marks = dict(re.findall(r"^\| \*\*(\w+)\*\*( \([a-z, ]+\))? \|", text, flags=re.MULTILINE))
    assert note in marks["biased"] and note not in marks["unbiased"]


@pytest.fixture(scope="module")
def crossval(hyperkvasir, shared_data, tiny_pth, tmp_path_factory):
    """The recipe of the published 16-class row, on placeholder images, with one update per fold."""
    out = tmp_path_factory.mktemp("rows") / "hyperkvasir"
    done = run_cli(
        *("crossval", "--recipe", "hyperkvasir-16", "--folds", "official", "--model_name_or_path", tiny_pth),
        *(
            "--data_dir",
            hyperkvasir,
            "--split_file",
            *list_official_split_files(shared_data, "hyperkvasir-16"),
            "--output_dir",
            out,
        ),
        *("--max_steps", 1, "--image_size", 16, "--per_device_eval_batch_size", 500, "--bf16", "false"),
    )
    return out, done.stdout


def test_a_published_row_is_one_command(crossval):
    out, printed = crossval
    summary = json.loads((out / "crossval.json").read_text())["crossval"]
    mean, std = (100 * summary["mean_and_std"]["accuracy"][key] for key in ("mean", "std"))
    row = next(line for line in printed.splitlines() if line.startswith("| **hyperkvasir**"))
    assert f"| {mean:.2f} ± {std:.2f} [" in row
    assert "(official)" in printed and "| 87.63 ± 0.36 |" in printed
    assert "Mean of 2 runs (2 folds, 1 seed)." in printed and SELECTED_ON_EVAL_TEXT in printed
    assert (out / "report.tex").is_file() and (out / "report.json").is_file()


def test_incomplete_runs_are_rejected(crossval, tmp_path):
    with raises(RunMessage.NOT_A_COMPLETED_RUN, path=tmp_path):
        load_run(tmp_path)
    write_run(tmp_path / "run", 0.8)
    with raises(RunMessage.SPLIT_NOT_EVALUATED, split="test", available=["validation"]):
        load_run(tmp_path / "run", "test")
    for suffix in ("csv", "parquet"):
        (tmp_path / "run" / f"predictions_validation.{suffix}").unlink()
    with raises(RunMessage.PREDICTIONS_MISSING, path=tmp_path / "run", split="validation"):
        load_run(tmp_path / "run")
    (tmp_path / "run" / "all_results.json").write_text("{")
    with raises(RunMessage.RECORD_DAMAGED):
        load_run(tmp_path / "run")
    assert main(["report"]) == 2


def test_an_evaluation_is_reported_too(tiny_pth, toy, tmp_path):
    argv = ["finetune", "--model_name_or_path", tiny_pth, "--data_dir", toy / "labelled", "--max_steps", 1]
    assert main([*map(str, [*argv, "--output_dir", tmp_path / "run", "--disable_tqdm", "true"])]) == 0
    argv = ["evaluate", "--model_name_or_path", tmp_path / "run", "--data_dir", toy / "labelled", "--output_dir"]
    assert main([*map(str, [*argv, tmp_path / "again", "--split", "validation"])]) == 0
    run = load_run(tmp_path / "again")
    assert (run.selected_on_eval_split, run.initialisation, run.split) == (True, "checkpoint-399.pth", "validation")
    names = {path.name for path in (tmp_path / "again" / "figures").iterdir()}
    for figure in (
        "confusion_matrix",
        "confusion_matrix_normalised",
        "per_class_f1",
        "roc",
        "precision_recall",
        "reliability",
    ):
        assert {f"{figure}_validation.png", f"{figure}_validation.pdf"} <= names


def test_the_report_warns_of_a_model_trained_on_the_evaluated_fold(tmp_path):
    source = SOURCE | {"benchmark": "hyperkvasir-16"}
    write_run(tmp_path / "model", 0.8, source=source, sizes={"train": 5235, "validation": 5244})
    write_run(tmp_path / "out", 0.8)
    (tmp_path / "out" / "all_results.json").unlink()
    record = RunRecord(
        kind="evaluate",
        base=str(tmp_path / "model"),
        data=DataSource(**source | {"fold": 2}),
        images={"train": 5244, "validation": 5235},
        environment=ENVIRONMENT,
        scores={"validation": {}},
    )
    write_record(record, tmp_path / "out")
    run = load_run(tmp_path / "out")
    assert run.protocol is None and "trained on fold 1, which contains the evaluated images" in " ".join(
        map(describe_note, run.notes)
    )


def write_prediction_table(path, classes, group=None):
    """A table of 20 images with scores; every fifth prediction is wrong."""
    header = ["file_name", *(["group"] if group else []), "label", "prediction", *(f"score:{name}" for name in classes)]
    lines = [",".join(header)]
    for number in range(20):
        label, best = number % len(classes), (number + (number % 5 == 0)) % len(classes)
        scores = [0.9 if index == best else 0.1 / (len(classes) - 1) for index in range(len(classes))]
        cells = [f"{number}.png", *([group] if group else []), classes[label], classes[best], *map(str, scores)]
        lines.append(",".join(cells))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_single_value_stands_for_a_list_of_one(tmp_path):
    """Otherwise a text would be read as a list of its characters."""
    path = write_prediction_table(tmp_path / "a.csv", ["mucosa", "polyp"])
    expected = compare([path], positive=["polyp"], operating_points=["threshold=0.5"]).to_dict()
    for run in (path, str(path), (path,)):
        assert compare(run, positive="polyp", operating_points="threshold=0.5").to_dict() == expected


@pytest.mark.parametrize("positive", [None, "polyp"])
def test_a_report_of_one_patient_gives_no_warning_of_numpy(positive, tmp_path):
    path = write_prediction_table(tmp_path / "a.csv", ["mucosa", "polyp"], group="p1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (table,) = compare(path, positive=positive).tables
    assert all(number.interval is None for number in table.rows[0].scores.values())


@pytest.mark.parametrize(
    "device_of, classes, missing, sentence",
    [
        (lambda n: "AB"[n // 5 % 2], ["a|b", "c"], [], "macro F1 p"),
        (lambda n: "B" if n % 2 == 0 else "ABC"[n % 3], ["c"], ["a|b"], "Not every subgroup has images of a|b."),
        (lambda n: "" if n > 14 else "AB"[n // 5 % 2], ["a|b", "c"], [], "macro F1 p"),
    ],
)
def test_subgroups_are_compared_on_the_classes_that_they_share(device_of, classes, missing, sentence, tmp_path):
    """Images with even numbers have the first class. The column has a colon in its name."""
    path = write_prediction_table(tmp_path / "a.csv", ["a|b", "c"])
    rows = "".join(f"{n}.png;{device_of(n)}\n" for n in range(20))
    (tmp_path / "m.csv").write_text(f"file_name;site:x\n{rows}")
    found = compare(path, subgroups="site:x", manifest=tmp_path / "m.csv", min_subgroup=3)
    (subgroups,) = found.tables[0].rows[0].diagnostic_accuracy.subgroups
    assert (subgroups.column, subgroups.classes, subgroups.missing_classes) == ("site:x", classes, missing)
    assert all(level.scores for level in subgroups.levels) and sentence in " ".join(found.summary().split())


def test_subgroups_without_a_common_class_are_not_tested(tmp_path):
    path = write_prediction_table(tmp_path / "a.csv", ["a", "b"])
    rows = "".join(f"{n}.png,{n % 2}\n" for n in range(20))
    (tmp_path / "m.csv").write_text(f"file_name,device\n{rows}")
    found = compare(path, subgroups="device", manifest=tmp_path / "m.csv", min_subgroup=3)
    (subgroups,) = found.tables[0].rows[0].diagnostic_accuracy.subgroups
    assert (subgroups.classes, subgroups.missing_classes, subgroups.tests) == ([], ["a", "b"], [])
    assert "No class has images in every subgroup" in found.summary()


def test_runs_are_compared_by_class_operating_point_and_margin(tmp_path):
    """The differences of the rates are those of the rates of each run."""
    runs = [tmp_path / "old", tmp_path / "new"]
    for folder, right in zip(runs, (0.8, 0.9)):
        write_run(folder, right, images=300, groups=[f"p{i // 4}" for i in range(300)])
    options = {"positive": ["ring", "folds"], "operating_points": ["threshold=0.5"], "prevalence": 0.2}
    options |= {"non_inferiority": ["accuracy=0.02", "sensitivity=0.05", "log_loss=0.5"], "equivalence": "mcc=0.02"}
    found = compare(runs, **options)
    (table,) = found.tables
    by_method = {row.method: row for row in table.rows}
    old, new = by_method["old"], by_method["new"]
    assert [(*entry["classes"], entry["rule"], entry["prevalence"]) for entry in table.rate_comparisons] == [
        *((name, None, None) for name in ("blob", "folds", "ring")),
        ("ring", "folds", None, 0.2),
        ("ring", "folds", "threshold=0.5", 0.2),
    ]
    for entry in table.rate_comparisons:
        if entry["prevalence"] is None:
            rates = [row.by_class[entry["classes"][0]] for row in (old, new)]
        else:
            index = 0 if entry["rule"] is None else 1
            points = [row.diagnostic_accuracy.one_vs_rest[0].operating_points[index] for row in (old, new)]
            rates = [point.rates for point in points]
        for name in ("sensitivity", "specificity", "ppv", "npv"):
            score = entry["scores"][name]
            assert score["difference"] == pytest.approx(rates[1][name].value - rates[0][name].value, abs=1e-9)
            assert score["low"] < score["difference"] < score["high"]
    (benefit,) = [entry["net_benefit"] for entry in table.rate_comparisons if entry["net_benefit"]]
    curves = [row.diagnostic_accuracy.one_vs_rest[0].decision_curve for row in (old, new)]
    assert benefit["difference"] == pytest.approx(np.subtract(curves[1].net_benefit, curves[0].net_benefit).tolist())
    assert all(
        low < value < high for value, low, high in zip(*(benefit[name] for name in ("difference", "low", "high")))
    )
    shown = {test["score"]: (test["kind"], test["shown"]) for test in table.margin_tests}
    assert shown["accuracy"] == ("non_inferiority", True) and shown["mcc"] == ("equivalence", False)
    for test in table.margin_tests:
        assert (test["first"], test["second"], test["units"]) == ("old", "new", "groups")
        assert test["p_value"] <= test["p_adjusted"]
    text = " ".join(found.summary().split())
    assert "Comparison with old: difference of the run minus old" in text and "equivalence not shown" in text
    assert "new minus old, classes against the rest" in text and "Net benefit for ring or folds" in text


@pytest.mark.parametrize(
    "options, code",
    [
        ({"non_inferiority": "accuracy"}, EvaluationMessage.INVALID_MARGIN),
        ({"non_inferiority": "accuracy=0"}, EvaluationMessage.INVALID_MARGIN),
        ({"equivalence": ["accuracy=-0.1"]}, EvaluationMessage.INVALID_MARGIN),
        ({"equivalence": "accuracy=inf"}, EvaluationMessage.INVALID_MARGIN),
        ({"equivalence": "ece=0.1"}, EvaluationMessage.INVALID_MARGIN),
        ({"equivalence": "sensitivity=0.1"}, ReportingMessage.MARGIN_NEEDS_POSITIVE),
        ({"equivalence": "qwk=0.1"}, EvaluationMessage.MARGIN_OF_UNDEFINED_SCORE),
    ],
)
def test_margins_that_do_not_fit_are_rejected(options, code, tmp_path):
    paths = [write_prediction_table(tmp_path / f"{name}.csv", ["mucosa", "polyp"]) for name in "ab"]
    with raises(code):
        compare(paths, **options)
    with raises(ReportingMessage.MARGIN_WITHOUT_RUNS):
        compare(paths[0], equivalence="accuracy=0.1")


@pytest.mark.parametrize(
    "flags, code",
    [
        (["--prevalence", "2"], SettingsMessage.INVALID_PREVALENCE),
        (["--prevalence", "0.1"], ReportingMessage.PREVALENCE_NOT_USED),
        (["--operating_point", "sens=1"], EvaluationMessage.INVALID_OPERATING_POINT),
    ],
)
def test_wrong_options_of_a_report_are_wrong_command_lines(flags, code, tmp_path, capsys):
    path = write_prediction_table(tmp_path / "a.csv", ["mucosa", "polyp"])
    assert main(["report", str(path), "--output_dir", str(tmp_path / "out"), *flags]) == 2
    assert shows(capsys.readouterr().err, code) and not (tmp_path / "out").exists()


def test_costs_of_decisions_are_in_the_report(tmp_path):
    paths = [write_prediction_table(tmp_path / f"{name}.csv", ["mucosa", "polyp"]) for name in "ab"]
    costs = tmp_path / "costs.csv"
    costs.write_text("true,mucosa,polyp\nmucosa,0,1\npolyp,20,0\n")
    assert main(["report", *map(str, paths), "--costs", str(costs), "--output_dir", str(tmp_path / "out")]) == 0
    (table,) = json.loads((tmp_path / "out" / "report.json").read_text())["tables"]
    argmax, bayes = table["rows"][0]["diagnostic_accuracy"]["expected_costs"]
    assert (argmax["decisions"], argmax["expected_cost"]["value"]) == ("argmax", pytest.approx(2.1))
    assert (bayes["decisions"], bayes["normalized"]["value"]) == ("bayes", 1.0), "a score of 0.1 is enough for polyp"
    assert {one["decisions"] for one in table["comparisons"] if one["score"] == "expected_cost"} == {"argmax", "bayes"}
    for suffix in ("md", "tex"):
        assert "Bayes decision" in (tmp_path / "out" / f"report.{suffix}").read_text()


ANNOTATIONS = "file_name,R1,R2\n" + "".join(
    f"images/{number}.png,{'polyp' if number % 2 else 'mucosa'},{'' if number > 9 else 'polyp'}\n"
    for number in range(20)
)


def test_agreement_of_annotators_is_beside_that_of_the_models(tmp_path):
    (tmp_path / "annotations.csv").write_text(ANNOTATIONS)
    options = {"annotators": ["R1", "R2"], "manifest": tmp_path / "annotations.csv"}
    paths = [write_prediction_table(tmp_path / f"{name}.csv", ["mucosa", "polyp"]) for name in "ab"]
    comparison = compare(paths, **options)
    for row in comparison.tables[0].rows:
        agreement = row.diagnostic_accuracy.annotator_agreement
        assert agreement.annotators.images == 10 and agreement.annotators.agreement.value == 0.5
        assert [(pair.second, pair.images) for pair in agreement.model] == [("R1", 20), ("R2", 10)]
        assert agreement.model[0].agreement.value == pytest.approx(row.scores["accuracy"].value / 100)
    assert comparison.summary().count("Krippendorff's alpha") == 2, "the annotators are listed once"
    (alone,) = compare([], **options).tables
    assert alone.agreement.annotators.agreement == agreement.annotators.agreement and alone.agreement.model == []


@pytest.mark.parametrize(
    "annotators, content, code",
    [
        (["R1"], ANNOTATIONS, ReportingMessage.TOO_FEW_ANNOTATORS),
        (["R1", "R3"], ANNOTATIONS, ReportingMessage.UNKNOWN_COLUMN),
        (["R1", "R2"], ANNOTATIONS.replace("file_name", "image"), ReportingMessage.NO_FILE_NAME_COLUMN),
        (["R1", "R2"], "file_name,R1,R2\n0.png,polyp,nan\n1.png,,-1\n", ReportingMessage.NO_SHARED_ANNOTATIONS),
        (["R1", "R2"], "file_name,R1,R2\nx.png,polyp,polyp\n", ReportingMessage.IMAGES_WITHOUT_ROW),
    ],
)
def test_annotations_that_cannot_be_used(annotators, content, code, tmp_path):
    (tmp_path / "annotations.csv").write_text(content)
    path = write_prediction_table(tmp_path / "a.csv", ["mucosa", "polyp"])
    with pytest.raises(UsageError) as caught:
        compare(path, annotators=annotators, manifest=tmp_path / "annotations.csv")
    assert caught.value.code is code


def test_grades_of_annotators_must_be_grades_of_the_run(tmp_path):
    (tmp_path / "annotations.csv").write_text("file_name,R1,R2\n0.png,2,7\n1.png,1,1\n2.png,2,0\n")
    (table,) = compare([], annotators=["R1", "R2"], manifest=tmp_path / "annotations.csv").tables
    assert table.agreement.annotators.ordinal_alpha is not None, "the classes are numbers"
    run = load_run(write_prediction_table(tmp_path / "a.csv", ["0", "1", "2"]))
    run.folds = [replace(fold, ordered=True) for fold in run.folds]
    with raises(ReportingMessage.ANNOTATIONS_NOT_GRADES, names=["7"]):
        compute_run_agreement(run, ["R1", "R2"], tmp_path / "annotations.csv")


def test_the_annotators_of_gastrohun(shared_data):
    table = shared_data / "splits" / "gastrohun" / "image_classification.csv"
    found = compare([], benchmark="gastrohun-23", annotators=["FG1", "FG2", "G1", "G2"], manifest=table)
    agreement = found.tables[-1].agreement.annotators
    assert agreement.images == 8834 and len(agreement.pairs) == 6
    assert agreement.alpha.value == pytest.approx(0.7474931193734142, abs=1e-12)  # krippendorff 0.9.0
    assert agreement.fleiss_kappa.value == pytest.approx(0.7474859732893437, abs=1e-12)  # statsmodels 0.15.0
    value, (low, high) = agreement.agreement.value, agreement.agreement.interval
    assert high - low > 1.3 * 2 * 1.96 * (value * (1 - value) / 8834) ** 0.5, "images of a patient are correlated"
