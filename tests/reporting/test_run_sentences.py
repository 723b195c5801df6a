"""Every fact of a record has one sentence, and the sentence contains its numbers and names."""

from types import SimpleNamespace

import pytest

from hf_mae.data.exclusion_log import ExclusionReason, record_excluded, track_exclusions
from hf_mae.evaluation.calibration import Calibration
from hf_mae.reporting.run_sentences import (
    EXCLUSION_TEXTS,
    NOTE_TEXTS,
    describe_exclusion,
    describe_hardware,
    describe_note,
    describe_selection,
    describe_temperature,
    describe_versions,
)
from hf_mae.runs.completed_run import Note, NoteCode
from hf_mae.runs.finetuning_record import get_selection
from hf_mae.runs.record import Environment, Hardware, Selection, SelectionRule

pytestmark = pytest.mark.unit

GAIN = 0.2, 0.7, 0.1, 0.6  # calibration errors and losses before and after


def test_every_note_and_every_reason_has_a_text():
    assert set(NOTE_TEXTS) == set(NoteCode) and len(set(NOTE_TEXTS.values())) == len(NoteCode)
    assert set(EXCLUSION_TEXTS) == set(ExclusionReason)


@pytest.mark.parametrize(
    "note, text",
    [
        (Note(NoteCode.FRACTION_OF_LABELS, {"fraction": 0.1}), "Trained on 10 % of the labels."),
        (
            Note(NoteCode.MEAN_OF_FOLDS, {"runs": 2, "folds": 2, "seeds": 1}),
            "Mean of 2 runs (2 folds, 1 seed).",
        ),
        (
            Note(NoteCode.EXTERNAL_CLASSES, {"class_map": "map.csv", "unmapped_images": {"Blood": 2}}),
            "External: classes mapped with map.csv; excluded images of other classes: 2 of Blood.",
        ),
        (
            Note(NoteCode.EXTERNAL_CLASSES, {"class_map": "map.csv", "unmapped_images": {}}),
            "External: classes mapped with map.csv; excluded images of other classes: none.",
        ),
    ],
)
def test_notes_contain_their_values(note, text):
    assert describe_note(note) == text


def make_trainer(**changes):
    args = {"ema_decay": None, "teacher": None, "teacher_weight": 0.5, "load_best_model_at_end": True}
    args |= {"metric_for_best_model": "macro_f1"}
    state = {"max_steps": 12, "best_model_checkpoint": "run/checkpoint-8", "best_global_step": 8}
    log = [{"step": step, "epoch": step / 4} for step in (4, 8, 12)]
    args |= {name: value for name, value in changes.items() if name in args}
    state |= {name: value for name, value in changes.items() if name in state}
    return SimpleNamespace(args=SimpleNamespace(**args), state=SimpleNamespace(**state, log_history=log))


BEST = (
    "The weights are those of the epoch with the best macro F1 on the validation split (epoch 2), "
    "so the scores on this split are optimistic."
)
LAST = "The weights are those at the end of the training."
AVERAGE = " They are an exponential moving average (--ema_decay 0.99)."
DISTILLED = " The model was distilled from teacher (weight 0.3)."


@pytest.mark.parametrize(
    "changes, rule, text",
    [
        ({}, SelectionRule.BEST_EPOCH, BEST),
        ({"load_best_model_at_end": False}, SelectionRule.LAST_EPOCH, LAST),
        ({"best_model_checkpoint": None}, SelectionRule.LAST_EPOCH, LAST),
        ({"ema_decay": 0.99}, SelectionRule.BEST_EPOCH, BEST + AVERAGE),
        (
            {"load_best_model_at_end": False, "ema_decay": 0.99, "teacher": "runs/teacher", "teacher_weight": 0.3},
            SelectionRule.LAST_EPOCH,
            LAST + AVERAGE + DISTILLED,
        ),
    ],
)
def test_the_selection_is_stored_as_facts_and_described_once(changes, rule, text):
    selection = get_selection(make_trainer(**changes), "validation")
    assert selection.rule is rule
    if rule is SelectionRule.BEST_EPOCH:
        assert (selection.selection_split, selection.metric, selection.epoch) == ("validation", "macro_f1", 2.0)
    else:
        assert selection.selection_split is None and selection.checkpoint is None
    assert describe_selection(selection) == text


def test_a_search_is_part_of_the_selection():
    selection = Selection(SelectionRule.LAST_EPOCH, search_trials=3)
    text = "Its hyper-parameters are the best of 3 trials on the selection split (hf-mae search)."
    assert describe_selection(selection) == f"{LAST} {text}" and describe_selection(None) == ""


@pytest.mark.parametrize(
    "reason, detail, text",
    [
        (ExclusionReason.UNREADABLE, None, "unreadable"),
        (ExclusionReason.LISTED_IN_FILE, "pairs.csv", "excluded by pairs.csv"),
        (ExclusionReason.BEYOND_TRAIN_FRACTION, 0.1, "training images beyond train_fraction 0.1"),
        (ExclusionReason.CLASS_NOT_IN_MODEL, "Blood", "class Blood, which the model does not have"),
    ],
)
def test_exclusions_are_described(reason, detail, text):
    with track_exclusions() as log:
        record_excluded(reason, 2, ["a.png", "b.png"], detail)
        record_excluded(reason, 0)
    (step,) = log.excluded
    assert describe_exclusion(step) == text and (step.images, step.examples) == (2, ["a.png", "b.png"])


def test_hardware_versions_and_temperatures_are_described():
    assert describe_hardware(Hardware(8, "x86_64")) == "8 CPU cores (x86_64)"
    assert describe_hardware(Hardware(8, "x86_64", 2, "H200")) == "2 x H200"
    environment = Environment(Hardware(8, "x86_64"), {"torch": "2.14", "timm": "1.0"})
    assert describe_versions(environment) == "torch 2.14, timm 1.0"
    assert describe_temperature(Calibration(1.5, *GAIN)) == "temperature 1.500"
    by_class = Calibration(1.5, *GAIN, class_temperatures={"a": 2.0, "b": 0.5})
    assert describe_temperature(by_class) == "temperatures per class from 0.500 (b) to 2.000 (a)"
