"""Runs as rows of a report: cross-validations by fold or on one test split, and evaluations of a trained model."""

from dataclasses import replace

import numpy as np
import pytest
from support.messages import raises
from support.records import ENVIRONMENT

from hf_mae.runs.completed_run import NoteCode
from hf_mae.runs.load_run import load_run
from hf_mae.runs.messages import RunMessage
from hf_mae.runs.predictions import write_predictions
from hf_mae.runs.record import (
    CrossvalResult,
    CrossvalRun,
    CrossvalSummary,
    DataSource,
    RunRecord,
    Selection,
    SelectionRule,
)
from hf_mae.runs.record_io import write_record

pytestmark = pytest.mark.unit
GRADES = [f"Mayo {grade}" for grade in range(4)]


def write_crossval(folder, folds="official", fractions=(1.0,), benchmark="limuc-4"):
    """Writes two folds of a benchmark whose official folds share one test split."""
    data, results = DataSource("images", benchmark=benchmark, seed=1), []
    for run in [CrossvalRun(fraction, 0, fold, len(fractions) > 1) for fraction in fractions for fold in (1, 2)]:
        for split, prefix in (("validation", run.fold), ("test", "test")):
            labels = np.arange(8) % 4
            logits = np.random.default_rng(run.fold).normal(size=(8, 4))
            (folder / run.folder).mkdir(parents=True, exist_ok=True)
            write_predictions(
                folder / run.folder, split, [f"{prefix}_{i}.png" for i in range(8)], logits, labels, GRADES
            )
        sizes = {"train": 90 + run.fold, "validation": 8, "test": 8}
        source = replace(data, fold=run.fold, train_fraction=run.fraction)
        record = RunRecord("finetune", "mae.pth", source, sizes, ENVIRONMENT, classes=GRADES, ordered=True)
        write_record(record, folder / run.folder)
        results.append(CrossvalResult(run, run.folder, {}, "validation"))
    summary = CrossvalSummary(folds, results, {}, [{"fraction": fraction} for fraction in fractions], {})
    write_record(RunRecord("crossval", "mae.pth", data, {}, ENVIRONMENT, classes=GRADES, crossval=summary), folder)
    return folder


def test_official_folds_with_one_test_split_are_a_mean_on_it(tmp_path):
    run = load_run(write_crossval(tmp_path / "run"))
    assert (run.split, len(run.folds), run.folds[0].predicted.shape) == ("test", 1, (2, 8))
    assert run.ordered and not run.selected_on_eval_split and run.file_names[0][0] == "test_0.png"
    assert run.threshold_split == "validation" and len(run.threshold_predictions) == 2
    assert run.notes[-1].code is NoteCode.MEAN_OF_OFFICIAL_SPLITS
    by_fold = load_run(tmp_path / "run", "validation")
    assert (by_fold.split, len(by_fold.folds), by_fold.selected_on_eval_split) == ("validation", 2, True)
    assert by_fold.protocol is None and by_fold.notes[-1].code is NoteCode.MEAN_OF_FOLDS


def test_a_fraction_of_the_labels_is_noted_on_each_split(tmp_path):
    folder = write_crossval(tmp_path / "run", fractions=(0.1, 0.5))
    for split in ("test", "validation"):
        run = load_run(folder, split)
        assert [note.values for note in run.notes if note.code is NoteCode.FRACTION_OF_LABELS] == [{"fraction": 0.5}]
        assert run.protocol is None and (run.label_efficiency is None) == (split == "test")


@pytest.mark.parametrize(
    "options", [{"folds": "2"}, {"folds": "2", "benchmark": None}, {"benchmark": "hyperkvasir-23"}]
)
def test_other_cross_validations_have_validation_scores_only(options, tmp_path):
    folder = write_crossval(tmp_path / "run", **options)
    assert load_run(folder).split == "validation"
    with raises(RunMessage.SPLIT_NOT_EVALUATED, split="test", available=["validation"]):
        load_run(folder, "test")


@pytest.mark.parametrize("spelling, selected_on_it", [("images", True), ("images/../images/", True), ("other", False)])
def test_an_evaluation_knows_the_training_data_in_any_spelling(spelling, selected_on_it, tmp_path):
    for name in ("images", "other", "model", "evaluation"):
        (tmp_path / name).mkdir()
    selection = Selection(SelectionRule.BEST_EPOCH, selection_split="validation")
    record = RunRecord(
        "finetune",
        "mae.pth",
        DataSource(f"{tmp_path}/images"),
        {"validation": 8},
        ENVIRONMENT,
        classes=GRADES,
        scores={"validation": {"accuracy": 1.0}},
        selection=selection,
        seen_in_pretraining={"validation": 3},
    )
    write_record(record, tmp_path / "model")
    source = DataSource(f"{tmp_path}/{spelling}")
    record = replace(record, kind="evaluate", base=f"{tmp_path}/model", data=source, selection=None)
    write_record(record, tmp_path / "evaluation")
    labels = np.arange(8) % 4
    write_predictions(
        tmp_path / "evaluation", "validation", [f"{i}.png" for i in range(8)], np.eye(4)[labels], labels, GRADES
    )
    run = load_run(tmp_path / "evaluation")
    assert run.selected_on_eval_split == selected_on_it
    assert any(note.code is NoteCode.SEEN_IN_PRETRAINING for note in run.notes) == selected_on_it
