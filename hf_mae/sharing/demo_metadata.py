"""Facts of the demo page, from the record and the predictions of a run; `reporting.demo_texts` has its sentences."""

import csv
from dataclasses import replace
from pathlib import Path

from ..errors import UsageError, did_you_mean
from ..evaluation.operating_points import OneVsRest, ThresholdRule, estimate_binary_rates, find_positive_ids
from ..reporting.demo_texts import describe_classes, describe_model, describe_operating_point
from ..reporting.run_sentences import describe_note
from ..runs.completed_run import CompletedRun
from ..runs.identifiers import NameRules
from ..runs.load_run import load_run
from ..runs.predictions import list_predicted_splits
from ..runs.public_record import LOCAL_DATA, LOCAL_MODEL, make_public_record, public_source
from ..runs.record import ALL_RESULTS, run_name
from ..runs.run_licences import licence_of_exported
from ..runs.temperature import TEMPERATURE_FILE, read_temperature
from .messages import SharingMessage
from .space.app import DemoMetadata, escape_markdown


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
        run = _make_public(run, NameRules.from_data(names))
        licence = licence_of_exported([str(folder)])
        metadata.description = describe_model(run, licence, metadata, escape_markdown)
        for name, description in describe_classes(run, escape_markdown).items():
            metadata.classes[name] = " ".join([*([notes[name]] if name in notes else []), description])
    if positive:
        _set_operating_point(metadata, run, names, positive, operating_point or "youden")
    elif operating_point:
        raise UsageError(SharingMessage.OPERATING_POINT_WITHOUT_CLASSES)
    return metadata


def _make_public(run: CompletedRun, rules: NameRules) -> CompletedRun:
    """Returns a run whose texts contain no path and no name of a local file."""
    return replace(
        run,
        data=public_source(run.data, rules, LOCAL_DATA),
        initialisation=public_source(run.initialisation, rules, LOCAL_MODEL),
        trained=[make_public_record(record, rules) for record in run.trained],
    )


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
    metadata.operating_point = describe_operating_point(run, rule, metadata.threshold, rates)
