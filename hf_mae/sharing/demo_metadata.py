"""What a page in the browser says of a model, from the record and the predictions of its run."""

import csv
from pathlib import Path
from typing import Any

from ..errors import UsageError, did_you_mean, pluralize
from ..evaluation.confusion import TITLES
from ..evaluation.operating_points import OneVsRest, ThresholdRule, estimate_binary_rates
from ..models.model_zoo import find_licence
from ..runs.load_run import FinishedRun, load_run
from ..runs.record import ALL_RESULTS, run_name
from ..runs.temperature import TEMPERATURE_FILE, read_temperature
from .space_app import DemoMetadata, escape_markdown

SCORES, RATES = ("macro_f1", "accuracy", "mcc"), ("sensitivity", "specificity")  # that the page tells


def build_demo_metadata(
    folder: Path,
    names: list[str],
    *,
    positive: list[str] | None = None,
    operating_point: str | None = None,
    class_notes: str | None = None,
) -> DemoMetadata:
    """The facts of a model, as far as its folder tells.

    Args:
        names: its classes.
        positive, operating_point: as of `hf-mae report`: the threshold is chosen on the validation split.
        class_notes: CSV of `class,note`: what a class means, in the words of those who know.

    Raises:
        UsageError: classes that the model does not have, or an operating point that cannot be chosen.
    """
    notes = _read_notes(class_notes, names) if class_notes else {}
    facts = DemoMetadata(run_name(folder), str(folder), classes=dict(notes))
    if (folder / TEMPERATURE_FILE).is_file():
        try:
            found = read_temperature(str(folder), averaged_views=False, names=names).to_dict(names)
            facts.temperature, facts.class_temperatures = found["temperature"], found.get("class_temperatures", {})
        except UsageError:
            pass  # it was fitted to averaged views, which the page does not take
    run = load_run(folder) if (folder / ALL_RESULTS).is_file() and list(folder.glob("predictions_*.csv")) else None
    if run is not None:
        facts.description = _describe_model(run, facts)
        for name, told in _describe_classes(run).items():
            facts.classes[name] = " ".join([*([notes[name]] if name in notes else []), told])
    if positive:
        _set_operating_point(facts, run, names, positive, operating_point or "youden")
    elif operating_point:
        raise UsageError("--operating_point is of --positive CLASS ...: name the classes that are positive.")
    return facts


def _read_notes(path: str, names: list[str]) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        notes = {row["class"]: row["note"] for row in rows}
    except (OSError, KeyError, UnicodeDecodeError, csv.Error):
        raise UsageError(f"--class_notes takes a CSV with the columns class and note, and {path} is none.") from None
    for name in notes:
        if name not in names:
            raise UsageError(f"{path} has a note on {name}, which is no class of the model{did_you_mean(name, names)}.")
    return notes


def _describe_model(run: FinishedRun, metadata: DemoMetadata) -> list[str]:
    """What it is, what it was trained on, how good it is, and what its scores are worth."""
    record = run.record
    kind = record.network if record and record.network else "vision transformer"
    lines = [f"A {kind}, fine-tuned from {escape_markdown(run.initialisation)}."]
    if record:
        counts = ", ".join(f"{split} {count}" for split, count in record.images.items())
        lines.append(f"Images of {escape_markdown(run.data)}: {counts}.")
        lines += [escape_markdown(record.selection.sentence)] if record.selection else []
        licence, _ = find_licence(record.base)
        lines += [f"Licence of the weights: {licence}."] if licence else []
    scores = run.scores()
    told = [f"{TITLES[name]} {_format_score(scores[name])}" for name in SCORES]
    images = sum(len(fold.labels) for fold in run.folds)
    lines.append(f"On {pluralize(images, 'image')} of the {run.split} split: {', '.join(told)}.")
    lines += [escape_markdown(note) for note in run.notes]
    if metadata.class_temperatures:
        by_class = ", ".join(
            f"{escape_markdown(name)} {value:.3g}" for name, value in metadata.class_temperatures.items()
        )
        lines.append(
            f"Scores are calibrated: logits are divided by that of the predicted class ({by_class}), fitted on images "
            "held out."
        )
    elif metadata.temperature != 1.0:
        lines.append(
            f"Scores are calibrated: logits are divided by {metadata.temperature:.3g}, fitted on images held out."
        )
    else:
        lines.append("Scores are not calibrated: a score of 0.9 may be right less often than in nine cases of ten.")
    return lines


def _format_score(score: dict[str, Any]) -> str:
    mean = f"{100 * score['mean']:.1f} %"
    if score["interval"] is None:
        return mean
    low, high = score["interval"]
    return f"{mean} (95 % interval {100 * low:.1f} to {100 * high:.1f})"


def _describe_classes(run: FinishedRun) -> dict[str, str]:
    """How often the model is right when it says a class, how many of its images it finds, and what it takes for it."""
    matrix = sum(fold.confusion_matrices().mean(0) for fold in run.folds)
    told = {}
    for index, name in enumerate(run.names):
        said, there, right = matrix[:, index].sum(), matrix[index].sum(), matrix[index, index]
        sentences = [f"of {said:g} {run.split} images that it calls so, {right:g} are" if said else "it never says so"]
        sentences.append(f"of {there:g} that are, it finds {right:g}" if there else "no image there is one")
        others = matrix[:, index].copy()
        others[index] = 0
        if others.max() > 0:
            sentences.append(f"most of the mistaken are {run.names[int(others.argmax())]}")
        told[name] = _format_sentence("; ".join(sentences))
    return told


def _format_sentence(text: str) -> str:
    return escape_markdown(text[0].upper() + text[1:] + ".")


def _set_operating_point(
    metadata: DemoMetadata, run: FinishedRun | None, names: list[str], positive: list[str], rule_text: str
) -> None:
    """The threshold on the summed score of the positive classes, and what it comes to on the reported split."""
    for name in positive:
        if name not in names:
            raise UsageError(
                f"The model has no class {name}{did_you_mean(name, names)}: --positive takes some of its own."
            )
    if set(positive) == set(names):
        raise UsageError("--positive names every class: there is nothing they can be told from.")
    rule, ids = ThresholdRule.parse(rule_text), [names.index(name) for name in positive]
    if run is None or (run.threshold_predictions is None and rule.is_data_driven) or len(run.folds) != 1:
        why = "the run has no predictions" if run is None else run.no_threshold_reason
        raise UsageError(f"No operating point can be chosen: {why}.")
    thresholds = OneVsRest.from_predictions(run.threshold_predictions or run.folds, ids).choose_thresholds(rule)
    rates = estimate_binary_rates(OneVsRest.from_predictions(run.folds, ids).apply_thresholds(thresholds))
    found = ", ".join(f"{title} {100 * rate.value:.1f} %" for title, rate in rates.items() if title in RATES)
    chosen = f"chosen on {run.threshold_split}" if rule.is_data_driven else "given"
    metadata.positive, metadata.threshold = list(positive), float(thresholds[0][0])
    metadata.operating_point = (
        f"From a summed score of {metadata.threshold:.3f} of the uncalibrated model ({rule}, {chosen}); on the "
        f"{run.split} split: {found}."
    )
