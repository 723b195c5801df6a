"""Texts of the demo page, from the record and the predictions of a run."""

import csv
from pathlib import Path
from typing import Any

from ..errors import UsageError, did_you_mean, pluralize
from ..evaluation.metrics import summary_metric_names
from ..evaluation.operating_points import OneVsRest, ThresholdRule, estimate_binary_rates
from ..models.model_zoo import find_licence
from ..reporting.run_sentences import describe_note, describe_selection
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
        folder: the model.
        names: its classes.
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
    """Describes architecture, training data, scores and calibration of a model."""
    record = run.record
    network = record.network if record and record.network else "vision transformer"
    lines = [f"Model: {network}, fine-tuned from {escape_markdown(run.initialisation)}."]
    if record:
        counts = ", ".join(f"{split} {count}" for split, count in record.images.items())
        lines.append(f"Images of {escape_markdown(run.data)}: {counts}.")
        lines += [escape_markdown(describe_selection(record.selection))] if record.selection else []
        licence, _ = find_licence(record.base)
        lines += [f"Licence of the weights: {licence}."] if licence else []
    scores = run.scores()
    formatted = ", ".join(f"{METRICS[name].title} {_format_score(scores[name])}" for name in summary_metric_names())
    num_images = sum(len(fold.labels) for fold in run.folds)
    lines.append(f"Scores on {pluralize(num_images, 'image')} of the {run.split} split: {formatted}.")
    lines += [escape_markdown(describe_note(note)) for note in run.notes]
    if metadata.class_temperatures:
        by_class = ", ".join(
            f"{escape_markdown(name)} {value:.3g}" for name, value in metadata.class_temperatures.items()
        )
        lines.append(
            f"Scores are calibrated: logits are divided by the temperature of the predicted class ({by_class}), fitted "
            f"on held-out images."
        )
    elif metadata.temperature != 1.0:
        lines.append(
            f"Scores are calibrated: logits are divided by a temperature of {metadata.temperature:.3g}, fitted on "
            "held-out images."
        )
    else:
        lines.append(
            "Scores are not calibrated: predictions with a score of 0.9 may be correct in less than 90 % of cases."
        )
    return lines


def _format_score(score: dict[str, Any]) -> str:
    mean = f"{100 * score['mean']:.1f} %"
    if score["interval"] is None:
        return mean
    low, high = score["interval"]
    return f"{mean} (95 % interval {100 * low:.1f} to {100 * high:.1f})"


def _describe_classes(run: CompletedRun) -> dict[str, str]:
    """Describes precision, recall and the most frequent confusion of each class."""
    matrix = sum(fold.confusion_matrices().mean(0) for fold in run.folds)
    descriptions = {}
    for index, name in enumerate(run.class_names):
        predicted, actual, correct = matrix[:, index].sum(), matrix[index].sum(), matrix[index, index]
        sentences = [
            f"Correct in {correct:g} of {predicted:g} {run.split} images with this prediction."
            if predicted
            else f"Not predicted for any {run.split} image.",
            f"Found in {correct:g} of {actual:g} images of this class."
            if actual
            else f"The {run.split} split contains no image of this class.",
        ]
        errors = matrix[:, index].copy()
        errors[index] = 0
        if errors.max() > 0:
            sentences.append(f"False positives are mostly {run.class_names[int(errors.argmax())]}.")
        descriptions[name] = escape_markdown(" ".join(sentences))
    return descriptions


def _set_operating_point(
    metadata: DemoMetadata, run: CompletedRun | None, names: list[str], positive: list[str], rule_text: str
) -> None:
    """Sets the threshold on the summed score of the positive classes, and its performance on the reported split."""
    for name in positive:
        if name not in names:
            suggestion = did_you_mean(name, names)
            raise UsageError(SharingMessage.UNKNOWN_POSITIVE_CLASS, name=name, suggestion=suggestion)
    if set(positive) == set(names):
        raise UsageError(SharingMessage.ALL_CLASSES_POSITIVE)
    rule, ids = ThresholdRule.parse(rule_text), [names.index(name) for name in positive]
    if run is None:
        raise UsageError(SharingMessage.OPERATING_POINT_WITHOUT_PREDICTIONS)
    if (run.threshold_predictions is None and rule.is_data_driven) or len(run.folds) != 1:
        raise UsageError(SharingMessage.NO_OPERATING_POINT, reason=describe_note(run.no_threshold_reason))
    thresholds = OneVsRest.from_predictions(run.threshold_predictions or run.folds, ids).choose_thresholds(rule)
    rates = estimate_binary_rates(OneVsRest.from_predictions(run.folds, ids).apply_thresholds(thresholds))
    performance = ", ".join(f"{title} {100 * rate.value:.1f} %" for title, rate in rates.items() if title in RATES)
    origin = f"chosen on the {run.threshold_split} split" if rule.is_data_driven else "given"
    metadata.positive, metadata.threshold = list(positive), float(thresholds[0][0])
    metadata.operating_point = (
        f"Positive if the summed score of the uncalibrated model is at least {metadata.threshold:.3f} ({rule}, "
        f"{origin}). On the {run.split} split: {performance}."
    )
