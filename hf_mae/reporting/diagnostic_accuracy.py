"""What a clinical reader asks of a run, from its predictions: probabilities, operating points, patients, subgroups."""

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.manifests import resolve_manifest
from ..data.tables import read_table
from ..errors import UsageError, did_you_mean
from ..evaluation.confusion import headline_metrics
from ..evaluation.intervals import MIN_CLUSTERS, Estimate, Rate, estimate_headline_metrics
from ..evaluation.operating_points import (
    PATIENT_AGGREGATIONS,
    DecisionCurve,
    OneVsRest,
    ThresholdRule,
    estimate_binary_rates,
)
from ..evaluation.patients import estimate_by_patient
from ..evaluation.prediction_table import Predictions, clusters_from_predictions
from ..evaluation.probability_metrics import estimate_probability_metrics
from ..evaluation.significance import holm
from ..evaluation.subgroups import MISSING, assign_subgroups, interaction_tests
from ..runs.load_run import FinishedRun

PREDICTED_CLASS_RULE = "predicted class"
MIN_SUBGROUP_IMAGES = 20  # of a subgroup, for scores to be shown
INTERACTION_SCORES = ("macro_f1", "accuracy")


@dataclass(frozen=True)
class ReportOptions:
    """What a report is asked beyond its tables.

    Args:
        positive: classes that are positive, together; None: every class by itself, where there are operating points.
        operating_points: how thresholds are chosen.
        prevalence: of PPV and NPV; None: that of the images.
        subgroups: columns of the manifest, with `COLUMN:EDGE,EDGE` for bands.
        manifest: with these columns and `file_name`; None: the run's own.
        min_images: that a subgroup needs.
    """

    positive: tuple[str, ...] | None = None
    operating_points: tuple[ThresholdRule, ...] = ()
    prevalence: float | None = None
    subgroups: tuple[str, ...] = ()
    manifest: Path | None = None
    min_images: int = MIN_SUBGROUP_IMAGES


DEFAULT_REPORT_OPTIONS = ReportOptions()


@dataclass(frozen=True)
class OperatingPoint:
    """Rates at a threshold that was chosen on another split.

    Args:
        rule: as it was asked for, or `PREDICTED`: the predicted class is positive.
        aggregation: `images`, or patients by the `mean` or the `worst` of their images.
        thresholds: of each fold and run, on the summed score of the positive classes.
        threshold_split: split.
        threshold_split_rates: sensitivity and specificity on that split.
        rates: on the images of the report.
    """

    rule: str
    aggregation: str
    rates: dict[str, Rate]
    thresholds: list[float] = field(default_factory=list)
    threshold_split: str | None = None
    threshold_split_rates: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class OneVsRestResult:
    """Positive classes against the others.

    Args:
        classes: that are positive.
        prevalence: their share of the images, and that PPV and NPV are at.
        auroc: by `images`, and by patient where these are known.
        agreement: `accuracy`, `F1` of the positive side and Cohen's `kappa`, by the predicted class.
    """

    classes: list[str]
    prevalence: float
    target_prevalence: float
    auroc: dict[str, Estimate]
    average_precision: float
    agreement: dict[str, Estimate]
    operating_points: list[OperatingPoint]
    decision_curve: DecisionCurve


@dataclass(frozen=True)
class Subgroup:
    """A part of the images; scores as fractions, None where it is too small."""

    value: str
    images: int
    units: str
    count: int
    scores: dict[str, Estimate] | None


@dataclass(frozen=True)
class Subgroups:
    """The parts that a column makes, and tests of no difference between those that are large enough.

    Args:
        tests: by score: `p_value`, `p_adjusted` (Holm, over all columns), `statistic` (F), `df`, `levels`.
    """

    column: str
    levels: list[Subgroup]
    tests: list[dict[str, Any]]


@dataclass(frozen=True)
class DiagnosticAccuracy:
    """The answers for a run."""

    probabilities: dict[str, Estimate]
    one_vs_rest: list[OneVsRestResult]
    patients: dict[str, dict[str, Estimate]]
    subgroups: list[Subgroups]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """What `report.json` holds."""
        found: dict[str, Any] = asdict(self)
        return found


def compute_diagnostic_accuracy(run: FinishedRun, options: ReportOptions) -> DiagnosticAccuracy:
    """Everything that is asked of a run, and that its predictions can tell."""
    notes: list[str] = []
    with_scores = all(fold.class_scores is not None for fold in run.folds)
    return DiagnosticAccuracy(
        estimate_probability_metrics(run.folds) if with_scores else {},
        _compute_one_vs_rest_results(run, options, notes) if with_scores else [],
        estimate_by_patient(run.folds),
        _compute_subgroups(run, options),
        notes,
    )


# Sides


def _compute_one_vs_rest_results(run: FinishedRun, options: ReportOptions, notes: list[str]) -> list[OneVsRestResult]:
    if not (options.positive or options.operating_points):
        return []
    if options.positive:
        for name in options.positive:
            if name not in run.names:
                raise UsageError(
                    f"{run.folder} has no class {name}{did_you_mean(name, run.names)}: --positive takes some of "
                    f"{', '.join(run.names)}."
                )
        if set(options.positive) == set(run.names):
            raise UsageError("--positive names every class: there is nothing they can be told from.")
        groupings = [list(dict.fromkeys(options.positive))]
    else:
        groupings = [[name] for name in run.names]
    rules = list(options.operating_points)
    if rules and run.threshold_predictions is None and any(rule.is_data_driven for rule in rules):
        notes.append(f"No operating point: {run.no_threshold_reason}.")
        rules = [rule for rule in rules if not rule.is_data_driven]
    return [
        side
        for names in groupings
        if (side := _compute_one_vs_rest_result(run, names, rules, options, notes)) is not None
    ]


def _compute_one_vs_rest_result(
    run: FinishedRun, names: list[str], rules: list[ThresholdRule], options: ReportOptions, notes: list[str]
) -> OneVsRestResult | None:
    ids = [run.names.index(name) for name in names]
    here = OneVsRest.from_predictions(run.folds, ids)
    there = OneVsRest.from_predictions(run.threshold_predictions, ids) if run.threshold_predictions else None
    area = here.auroc()
    if area is None:
        notes.append(f"{' and '.join(names)}: of no image, or of every one, so nothing is told of it.")
        return None
    levels = {"images": (here, there)}
    if options.positive and here.has_patients:
        levels |= {
            way: (here.aggregate_by_patient(way), there and there.aggregate_by_patient(way))
            for way in PATIENT_AGGREGATIONS
        }
    points, areas = (
        [OperatingPoint(PREDICTED_CLASS_RULE, "images", estimate_binary_rates(here.folds, options.prevalence))],
        {"images": area},
    )
    for of, (judged, chosen) in levels.items():
        if of != "images" and (one := judged.auroc()) is not None:
            areas[of] = one
        for rule in rules:
            try:
                points.append(
                    _compute_operating_point(rule, of, judged, chosen, run.threshold_split, options.prevalence)
                )
            except UsageError as error:
                notes.append(f"{' and '.join(names)}: {error}")
    return OneVsRestResult(
        names,
        here.prevalence,
        here.prevalence if options.prevalence is None else options.prevalence,
        areas,
        here.average_precision(),
        here.estimate_agreement(),
        points,
        here.decision_curve(),
    )


def _compute_operating_point(
    rule: ThresholdRule,
    aggregation: str,
    eval_predictions: OneVsRest,
    threshold_predictions: OneVsRest | None,
    threshold_split: str | None,
    prevalence: float | None,
) -> OperatingPoint:
    if threshold_predictions is None:
        thresholds = [[rule.target] * len(fold.predicted) for fold in eval_predictions.folds]
        achieved, chosen_on = {}, None
    else:
        own, chosen_on = threshold_predictions.choose_thresholds(rule), threshold_split if rule.is_data_driven else None
        achieved = {
            name: rate.value
            for name, rate in estimate_binary_rates(threshold_predictions.apply_thresholds(own)).items()
        }
        every = iter([value for of_fold in own for value in of_fold])
        thresholds = [[next(every) for _ in fold.predicted] for fold in eval_predictions.folds]  # of each run its own
        achieved = {name: achieved[name] for name in ("sensitivity", "specificity") if name in achieved}
    rates = estimate_binary_rates(eval_predictions.apply_thresholds(thresholds), prevalence)
    flat = [value for of_fold in thresholds for value in of_fold]
    return OperatingPoint(str(rule), aggregation, rates, flat, chosen_on, achieved)


# Subgroups


def _compute_subgroups(run: FinishedRun, options: ReportOptions) -> list[Subgroups]:
    if not options.subgroups:
        return []
    rows = _read_manifest_rows(run, options.manifest)
    found = [_compute_subgroups_by_column(run, text, rows, options.min_images) for text in options.subgroups]
    tests = [test for one in found for test in one.tests]
    for test, adjusted in zip(tests, holm([test["p_value"] for test in tests])):
        test["p_adjusted"] = adjusted
    return found


def _read_manifest_rows(run: FinishedRun, manifest: Path | None) -> dict[str, dict[str, Any]]:
    path = manifest
    if path is None and run.source is not None:
        path = resolve_manifest(run.source)
    if path is None or not path.is_file():
        raise UsageError(
            f"{run.folder}: its data has no manifest with columns that could make subgroups (name one with --manifest)."
        )
    rows = read_table(path)
    if "file_name" not in rows[0]:
        raise UsageError(f"{path} lacks the column file_name; it has {', '.join(map(str, rows[0]))}.")
    by_file = {str(row["file_name"]): row for row in rows}
    files = {name for fold in run.file_names for name in fold}
    if missing := sorted(files - set(by_file)):
        raise UsageError(
            f"{path} has no row for {len(missing)} of the {len(files)} images of {run.folder} ({missing[0]}...): "
            "subgroups need every one."
        )
    return by_file


def _compute_subgroups_by_column(
    run: FinishedRun, column_spec: str, rows: dict[str, dict[str, Any]], min_images: int
) -> Subgroups:
    name, _, bands = column_spec.partition(":")
    known = [str(column) for column in next(iter(rows.values()))]
    if name not in known:
        raise UsageError(
            f"There is no column {name}{did_you_mean(name, known)}: --subgroups takes some of {', '.join(known)}."
        )
    if bands and not re.fullmatch(r"[-+.\d]+(,[-+.\d]+)*", bands):
        raise UsageError(f"--subgroups {column_spec}: bands are numbers, as in {name}:50,65.")
    edges = [float(edge) for edge in bands.split(",")] if bands else []
    values = [rows[file].get(name) for fold in run.file_names for file in fold]
    try:
        titles, place = assign_subgroups(values, edges)
    except ValueError as error:
        raise UsageError(f"The column {name} makes no subgroups: {error}.") from None
    starts = np.cumsum([0, *(len(fold.labels) for fold in run.folds)])
    by_fold = [place[start:end] for start, end in zip(starts, starts[1:])]
    parts, large = [], []
    for number, title in enumerate(titles):
        inside = [fold.select(own == number) for fold, own in zip(run.folds, by_fold) if (own == number).any()]
        if not inside:
            continue
        part = _compute_subgroup(title, inside, min_images)
        parts.append(part)
        if part.scores is not None and title != MISSING and clusters_from_predictions(inside).n_eff >= MIN_CLUSTERS:
            large.append(inside)
    tests = [asdict(test) for test in interaction_tests(large, headline_metrics, INTERACTION_SCORES)]
    return Subgroups(name, parts, tests)


def _compute_subgroup(title: str, folds: list[Predictions], min_images: int) -> Subgroup:
    units, images = clusters_from_predictions(folds), sum(len(fold.labels) for fold in folds)
    count = len(units.counts) if units.kind == "groups" else images
    if images < min_images:
        return Subgroup(title, images, units.kind, count, None)
    return Subgroup(title, images, units.kind, count, estimate_headline_metrics(folds))
