"""Diagnostic accuracy of a run: probability metrics, operating points, scores by patient, and subgroups (STARD)."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError, did_you_mean
from ..evaluation.chosen_thresholds import intervals_with_choice, threshold_intervals
from ..evaluation.differences import Margin
from ..evaluation.estimation import Rate, estimate_headline_metrics
from ..evaluation.expected_cost import ExpectedCost, estimate_expected_costs
from ..evaluation.interaction import interaction_tests
from ..evaluation.intervals import MIN_UNITS, Estimate, Interval
from ..evaluation.operating_points import (
    PATIENT_AGGREGATIONS,
    DecisionCurve,
    OneVsRest,
    ThresholdRule,
    estimate_binary_rates,
    find_positive_ids,
)
from ..evaluation.patients import estimate_by_patient
from ..evaluation.ppv_at_recall import PpvAtRecall, estimate_ppv_at_recall
from ..evaluation.prediction_table import Predictions, clusters_from_predictions
from ..evaluation.probability_metrics import estimate_probability_metrics
from ..evaluation.recalibration import Recalibration
from ..evaluation.significance import holm
from ..evaluation.subgroups import MISSING, assign_subgroups, select_classes, share_classes
from ..runs.completed_run import CompletedRun
from ..runs.cost_table import CostTable
from ..runs.record import CentreSummary
from .annotators import AnnotatorAgreement, compute_run_agreement
from .image_rows import read_rows_of_run
from .messages import ReportingMessage
from .run_sentences import describe_note
from .text_templates import report_text

PREDICTED_CLASS_RULE = "predicted class"
MIN_SUBGROUP_IMAGES = 20  # smaller subgroups have no scores
INTERACTION_SCORES = ("macro_f1", "accuracy")


@dataclass(frozen=True)
class ReportOptions:
    """Optional parts of a report.

    Args:
        positive: classes that are positive together; None: each class in turn, if there are operating points.
        operating_points: rules that choose thresholds.
        ppv_at_recall: recall of the PPV at a recall.
        prevalence: prevalence for PPV and NPV; None: that of the images.
        subgroups: columns of the manifest; `COLUMN:EDGE,EDGE` divides numbers into bands.
        manifest: file with these columns and `file_name`; None: the manifest of the run.
        min_images: minimum size of a subgroup with scores.
        costs: costs of decisions.
        margins: tests of non-inferiority and equivalence to the first run.
        annotators: columns of the manifest with the labels of annotators.
    """

    positive: tuple[str, ...] | None = None
    operating_points: tuple[ThresholdRule, ...] = ()
    ppv_at_recall: float | None = None
    prevalence: float | None = None
    subgroups: tuple[str, ...] = ()
    manifest: Path | None = None
    min_images: int = MIN_SUBGROUP_IMAGES
    costs: CostTable | None = None
    margins: tuple[Margin, ...] = ()
    annotators: tuple[str, ...] = ()


DEFAULT_REPORT_OPTIONS = ReportOptions()


@dataclass(frozen=True)
class OperatingPoint:
    """Rates at a threshold that was chosen on another split.

    Args:
        rule: the rule that chose the threshold, or `PREDICTED_CLASS_RULE`.
        aggregation: `images`, or patients with the `mean` or the `worst` score of their images.
        rates: rates on the images of the report.
        thresholds: one per fold and run, on the summed score of the positive classes.
        threshold_split: split that the thresholds were chosen on.
        threshold_split_rates: sensitivity and specificity on that split.
        threshold_intervals: of each threshold; None: too few images or patients of that split.
        sensitivity_with_choice, specificity_with_choice: intervals with the uncertainty of the thresholds.
    """

    rule: str
    aggregation: str
    rates: dict[str, Rate]
    thresholds: list[float] = field(default_factory=list)
    threshold_split: str | None = None
    threshold_split_rates: dict[str, float] = field(default_factory=dict)
    threshold_intervals: list[Interval] = field(default_factory=list)
    sensitivity_with_choice: Interval = None
    specificity_with_choice: Interval = None


@dataclass(frozen=True)
class OneVsRestResult:
    """Results of positive classes against the rest.

    Args:
        classes: the positive classes.
        prevalence: fraction of the images that are positive.
        target_prevalence: prevalence for PPV and NPV.
        auroc: by aggregation (see `OperatingPoint`).
        average_precision: of the images.
        agreement: `accuracy`, `F1` of the positive classes and Cohen's `kappa`, by the predicted class.
        operating_points: rates at the thresholds.
        decision_curve: net benefit over the threshold probability.
        ppv_at_recall: PPV at the requested recall, by aggregation; its thresholds are chosen on these images.
    """

    classes: list[str]
    prevalence: float
    target_prevalence: float
    auroc: dict[str, Estimate]
    average_precision: Estimate | None
    agreement: dict[str, Estimate]
    operating_points: list[OperatingPoint]
    decision_curve: DecisionCurve
    ppv_at_recall: dict[str, PpvAtRecall] = field(default_factory=dict)


@dataclass(frozen=True)
class Subgroup:
    """Results of a subgroup; its scores are fractions, or None if it has too few images of the compared classes."""

    value: str
    images: int
    units: str
    count: int
    scores: dict[str, Estimate] | None


@dataclass(frozen=True)
class Subgroups:
    """Results of the subgroups of a column.

    Args:
        levels: one subgroup per value or band.
        tests: tests of no difference between the subgroups that are large enough, one per score
            (`evaluation.interaction.InteractionTest`), with `p_adjusted` (Holm, over all columns).
        classes: the compared classes; scores and tests are of their images. None: the scores are of all images.
        missing_classes: the other classes; a large enough subgroup has no image of them.
    """

    column: str
    levels: list[Subgroup]
    tests: list[dict[str, Any]]
    classes: list[str]
    missing_classes: list[str]


@dataclass(frozen=True)
class DiagnosticAccuracy:
    """Diagnostic accuracy of a run.

    Args:
        calibration: by class, or positive classes together, against the rest; None: undefined.
    """

    probabilities: dict[str, Estimate]
    calibration: dict[str, Recalibration | None]
    one_vs_rest: list[OneVsRestResult]
    patients: dict[str, dict[str, Estimate]]
    subgroups: list[Subgroups]
    expected_costs: list[ExpectedCost]
    annotator_agreement: AnnotatorAgreement | None
    notes: list[str]
    centres: CentreSummary | None = None

    def to_dict(self) -> dict[str, Any]:
        """Converts the results to the values of `report.json`."""
        values: dict[str, Any] = asdict(self)
        return values


def compute_diagnostic_accuracy(run: CompletedRun, options: ReportOptions) -> DiagnosticAccuracy:
    """Computes the results that the options ask for and the predictions of the run allow."""
    notes: list[str] = []
    with_scores = all(fold.class_scores is not None for fold in run.folds)
    return DiagnosticAccuracy(
        estimate_probability_metrics(run.folds) if with_scores else {},
        _compute_calibration(run, options) if with_scores else {},
        _compute_one_vs_rest_results(run, options, notes) if with_scores else [],
        estimate_by_patient(run.folds),
        _compute_subgroups(run, options),
        _compute_expected_costs(run, options.costs, notes) if options.costs else [],
        compute_run_agreement(run, options.annotators, options.manifest) if options.annotators else None,
        notes,
        run.centres,
    )


def _compute_calibration(run: CompletedRun, options: ReportOptions) -> dict[str, Recalibration | None]:
    sides = {name: [index] for index, name in enumerate(run.class_names)}
    if len(options.positive or ()) > 1:
        ids = find_positive_ids(options.positive or (), run.class_names)
        sides[" or ".join(run.class_names[index] for index in ids)] = ids
    return {title: OneVsRest.from_predictions(run.folds, ids).recalibrate() for title, ids in sides.items()}


def _compute_expected_costs(run: CompletedRun, table: CostTable, notes: list[str]) -> list[ExpectedCost]:
    costs = estimate_expected_costs(run.folds, table.select(run.class_names, run.name))
    if len(costs) == 1:
        notes.append(report_text("no_bayes_decisions"))
    elif run.evaluated is None or run.evaluated.calibration is None:
        notes.append(report_text("not_calibrated"))
    if missing := costs[0].classes_without_images:
        notes.append(report_text("priors_without_images", names=[run.class_names[index] for index in missing]))
    return costs


# One class, or several, against the rest


def _compute_one_vs_rest_results(run: CompletedRun, options: ReportOptions, notes: list[str]) -> list[OneVsRestResult]:
    if not (options.positive or options.operating_points or options.ppv_at_recall is not None):
        return []
    groupings = [[index] for index in range(len(run.class_names))]
    if options.positive:
        groupings = [find_positive_ids(options.positive, run.class_names)]
    rules = list(options.operating_points)
    if rules and run.threshold_predictions is None and any(rule.is_data_driven for rule in rules):
        notes.append(f"No operating point: {describe_note(run.no_threshold_reason)}.")
        rules = [rule for rule in rules if not rule.is_data_driven]
    results = [_compute_one_vs_rest_result(run, ids, rules, options, notes) for ids in groupings]
    return [result for result in results if result is not None]


def _compute_one_vs_rest_result(
    run: CompletedRun, ids: list[int], rules: list[ThresholdRule], options: ReportOptions, notes: list[str]
) -> OneVsRestResult | None:
    names = [run.class_names[index] for index in ids]
    title = " and ".join(names)
    images = OneVsRest.from_predictions(run.folds, ids)
    threshold_images = OneVsRest.from_predictions(run.threshold_predictions, ids) if run.threshold_predictions else None
    area = images.auroc()
    if area is None:
        notes.append(f"{title}: undefined, because none or all of the images are positive.")
        return None
    predictions = {"images": (images, threshold_images)}
    if options.positive and images.has_patients:
        predictions |= {
            way: (images.aggregate_by_patient(way), threshold_images and threshold_images.aggregate_by_patient(way))
            for way in PATIENT_AGGREGATIONS
        }
    rates = estimate_binary_rates(images.folds, options.prevalence)
    points, areas = [OperatingPoint(PREDICTED_CLASS_RULE, "images", rates)], {"images": area}
    for aggregation, (evaluated, threshold_predictions) in predictions.items():
        if aggregation != "images" and (patient_area := evaluated.auroc()) is not None:
            areas[aggregation] = patient_area
        for rule in rules:
            try:
                points.append(
                    _compute_operating_point(
                        rule, aggregation, evaluated, threshold_predictions, run.threshold_split, options.prevalence
                    )
                )
            except UsageError as error:
                notes.append(f"{title}: {error}")
    ppv = {
        aggregation: estimate_ppv_at_recall(evaluated, recall, options.prevalence)
        for aggregation, (evaluated, _) in predictions.items()
        for recall in [options.ppv_at_recall]
        if recall is not None
    }
    return OneVsRestResult(
        names,
        images.prevalence,
        images.prevalence if options.prevalence is None else options.prevalence,
        areas,
        images.average_precision(),
        images.estimate_agreement(),
        points,
        images.decision_curve(),
        {name: result for name, result in ppv.items() if result is not None},
    )


def _compute_operating_point(
    rule: ThresholdRule,
    aggregation: str,
    eval_predictions: OneVsRest,
    threshold_predictions: OneVsRest | None,
    threshold_split: str | None,
    prevalence: float | None,
) -> OperatingPoint:
    thresholds, split_rates = eval_predictions.get_thresholds(rule, threshold_predictions), {}
    intervals: list[Interval] = []
    if threshold_predictions is not None:
        applied = threshold_predictions.apply_thresholds(threshold_predictions.choose_thresholds(rule))
        rates = estimate_binary_rates(applied)
        split_rates = {name: rate.value for name, rate in rates.items() if name in ("sensitivity", "specificity")}
    if threshold_predictions is None or not rule.is_data_driven:
        threshold_split = None
    else:
        intervals = threshold_intervals(rule, threshold_predictions)
    rates = estimate_binary_rates(eval_predictions.apply_thresholds(thresholds), prevalence)
    flat = [value for values in thresholds for value in values]
    with_choice = intervals_with_choice(eval_predictions, intervals, rates) if intervals else {}
    return OperatingPoint(
        str(rule),
        aggregation,
        rates,
        flat,
        threshold_split,
        split_rates,
        intervals,
        with_choice.get("sensitivity"),
        with_choice.get("specificity"),
    )


# Subgroups


def _compute_subgroups(run: CompletedRun, options: ReportOptions) -> list[Subgroups]:
    if not options.subgroups:
        return []
    rows = read_rows_of_run(run, options.manifest)
    columns = [_compute_subgroups_by_column(run, text, rows, options.min_images) for text in options.subgroups]
    tests = [test for subgroups in columns for test in subgroups.tests]
    for test, adjusted in zip(tests, holm([test["p_value"] for test in tests])):
        test["p_adjusted"] = adjusted
    return columns


def _compute_subgroups_by_column(
    run: CompletedRun, column_spec: str, rows: dict[str, dict[str, Any]], min_images: int
) -> Subgroups:
    name, edges = _parse_column(column_spec, [str(column) for column in next(iter(rows.values()))])
    values = [rows[file].get(name) for fold in run.file_names for file in fold]
    titles, level_ids = assign_subgroups(name, values, edges)
    starts = np.cumsum([0, *(len(fold.labels) for fold in run.folds)])
    ids_by_fold = [level_ids[start:end] for start, end in zip(starts, starts[1:])]
    folds_by_title = {
        title: [fold.select(ids == number) for fold, ids in zip(run.folds, ids_by_fold) if (ids == number).any()]
        for number, title in enumerate(titles)
        if (level_ids == number).any()
    }
    large = [
        folds for title, folds in folds_by_title.items() if title != MISSING and _count_images(folds) >= min_images
    ]
    shared = share_classes(large) if len(large) > 1 else range(len(run.class_names))
    occurring = _occurring_classes(run.folds)
    compared_classes, missing = (
        [run.class_names[index] for index in occurring if (index in shared) == inside] for inside in (True, False)
    )
    levels, tested = [], []
    for title, folds in folds_by_title.items():
        compared = select_classes(folds, shared) if shared else folds
        level = _compute_subgroup(title, folds, compared, min_images)
        levels.append(level)
        if level.scores is not None and title != MISSING and clusters_from_predictions(compared).n_eff >= MIN_UNITS:
            tested.append(compared)
    tests = [asdict(test) for test in interaction_tests(tested, INTERACTION_SCORES)] if shared else []
    return Subgroups(name, levels, tests, compared_classes, missing)


def _parse_column(column_spec: str, columns: list[str]) -> tuple[str, list[float]]:
    """Returns the column and the edges of its bands (none without) of a value of `--subgroups`."""
    name, _, bands = (column_spec, "", "") if column_spec in columns else column_spec.rpartition(":")
    name, bands = (name, bands) if name else (bands, "")
    if name not in columns:
        raise UsageError(
            ReportingMessage.UNKNOWN_COLUMN,
            flag="--subgroups",
            name=name,
            suggestion=did_you_mean(name, columns),
            names=columns,
        )
    try:
        edges = [float(edge) for edge in bands.split(",")] if bands else []
    except ValueError:
        edges = [float("nan")]
    if not np.isfinite(edges).all():
        raise UsageError(ReportingMessage.INVALID_BANDS, text=column_spec, name=name)
    return name, edges


def _count_images(folds: list[Predictions]) -> int:
    return sum(len(fold.labels) for fold in folds)


def _occurring_classes(folds: list[Predictions]) -> list[int]:
    """Returns the ids of the classes that occur among the labels or predictions."""
    ids: list[int] = np.unique(np.concatenate([[*fold.labels, *fold.predicted.ravel()] for fold in folds])).tolist()
    return ids


def _compute_subgroup(title: str, folds: list[Predictions], compared: list[Predictions], min_images: int) -> Subgroup:
    clusters, images = clusters_from_predictions(folds), _count_images(folds)
    count = len(clusters.counts) if clusters.kind == "groups" else images
    scores = None if _count_images(compared) < min_images else estimate_headline_metrics(compared)
    return Subgroup(title, images, clusters.kind, count, scores)
