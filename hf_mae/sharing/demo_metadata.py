"""Facts and texts of the demo page, from the record and the predictions of a run."""

import csv
from pathlib import Path

import numpy as np

from ..errors import UsageError, did_you_mean, pluralize
from ..evaluation.metrics import summary_metric_names
from ..evaluation.operating_points import OneVsRest, ThresholdRule, estimate_binary_rates, find_positive_ids
from ..models.model_zoo import find_licence
from ..reporting.run_sentences import describe_note
from ..reporting.text_templates import load_templates, render_text
from ..runs.completed_run import CompletedRun
from ..runs.load_run import load_run
from ..runs.predictions import list_predicted_splits
from ..runs.record import ALL_RESULTS, run_name
from ..runs.temperature import TEMPERATURE_FILE, read_temperature
from ..settings.metrics import METRICS
from .messages import SharingMessage
from .space.app import DemoMetadata, escape_markdown

RATES = ("sensitivity", "specificity")  # on the page


def build_demo_metadata(
    folder: Path,
    names: list[str],
    *,
    positive: list[str] | None = None,
    operating_point: str | None = None,
    class_notes: str | None = None,
) -> DemoMetadata:
    """Describes a model with the information in its folder.

    Args:
        positive, operating_point: as in `hf-mae report`; the threshold is chosen on the validation split.
        class_notes: CSV file with the columns `class` and `note`: an explanation of each class.

    Raises:
        UsageError: If the model does not have these classes, or the operating point cannot be chosen.
    """
    notes = _read_notes(class_notes, names) if class_notes else {}
    metadata = DemoMetadata(run_name(folder), str(folder), classes=dict(notes))
    if (folder / TEMPERATURE_FILE).is_file():
        try:
            values = read_temperature(str(folder), averaged_views=False, names=names).to_dict(names)
            metadata.temperature = values["temperature"]
            metadata.class_temperatures = values.get("class_temperatures", {})
        except UsageError:
            pass  # it was fitted with test-time augmentation, which the page does not use
    run = load_run(folder) if (folder / ALL_RESULTS).is_file() and list_predicted_splits(folder) else None
    if run is not None:
        metadata.description = _describe_model(run, metadata)
        for name, description in _describe_classes(run).items():
            metadata.classes[name] = " ".join([*([notes[name]] if name in notes else []), description])
    if positive:
        _set_operating_point(metadata, run, names, positive, operating_point or "youden")
    elif operating_point:
        raise UsageError(SharingMessage.OPERATING_POINT_WITHOUT_CLASSES)
    return metadata


def _read_notes(path: str, names: list[str]) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            notes = {row["class"]: row["note"] for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError, csv.Error):
        raise UsageError(SharingMessage.INVALID_CLASS_NOTES, path=path) from None
    for name in notes:
        if name not in names:
            suggestion = did_you_mean(name, names)
            raise UsageError(SharingMessage.UNKNOWN_CLASS_IN_NOTES, path=path, name=name, suggestion=suggestion)
    return notes


def _describe_model(run: CompletedRun, metadata: DemoMetadata) -> list[str]:
    """Describes architecture, training data, scores, notes and calibration of a model."""
    scores = run.scores()
    facts = {
        "run": run,
        "record": run.record,
        "metadata": metadata,
        "licence": find_licence(run.record.base)[0] if run.record else None,
        "scores": {METRICS[name].title: scores[name] for name in summary_metric_names()},
        "escape": escape_markdown,
        "pluralize": pluralize,
    }
    templates = load_templates("demo")
    first = [render_text(templates[name], facts) for name in ("model", "images", "selection", "licence", "scores")]
    notes = [escape_markdown(describe_note(note)) for note in run.notes]
    return [text for text in [*first, *notes, render_text(templates["calibration"], facts)] if text]


def _describe_classes(run: CompletedRun) -> dict[str, str]:
    """Describes precision, recall and the most frequent confusion of each class."""
    matrix = np.asarray(sum(fold.confusion_matrices().mean(0) for fold in run.folds))
    errors = matrix * (1 - np.eye(len(run.class_names)))
    descriptions = {}
    for index, name in enumerate(run.class_names):
        facts = {
            "split": run.split,
            "correct": matrix[index, index],
            "predicted": matrix[:, index].sum(),
            "actual": matrix[index].sum(),
            "confusion": run.class_names[errors[:, index].argmax()] if errors[:, index].any() else None,
        }
        descriptions[name] = escape_markdown(render_text(load_templates("demo")["class"], facts))
    return descriptions


def _set_operating_point(
    metadata: DemoMetadata, run: CompletedRun | None, names: list[str], positive: list[str], rule_text: str
) -> None:
    """Sets the threshold on the summed score of the positive classes, and its performance on the reported split."""
    rule, ids = ThresholdRule.parse(rule_text), find_positive_ids(positive, names)
    if run is None:
        raise UsageError(SharingMessage.OPERATING_POINT_WITHOUT_PREDICTIONS)
    if (run.threshold_predictions is None and rule.is_data_driven) or len(run.folds) != 1:
        raise UsageError(SharingMessage.NO_OPERATING_POINT, reason=describe_note(run.no_threshold_reason))
    thresholds = OneVsRest.from_predictions(run.threshold_predictions or run.folds, ids).choose_thresholds(rule)
    rates = estimate_binary_rates(OneVsRest.from_predictions(run.folds, ids).apply_thresholds(thresholds))
    metadata.positive, metadata.threshold = list(positive), float(thresholds[0][0])
    facts = {
        "run": run,
        "rule": rule,
        "threshold": metadata.threshold,
        "rates": {name: rates[name] for name in RATES if name in rates},
    }
    metadata.operating_point = render_text(load_templates("demo")["operating_point"], facts)
