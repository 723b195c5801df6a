"""Tests of the differences between completed runs."""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from ..errors import UsageError
from ..evaluation.differences import BINARY_SCORES, Margin, ModelScores, ScoreDifference, estimate_difference
from ..evaluation.expected_cost import compare_expected_costs
from ..evaluation.messages import EvaluationMessage
from ..evaluation.metrics import headline_metrics
from ..evaluation.operating_points import THRESHOLDS, OneVsRest, ThresholdRule
from ..evaluation.paired_proportions import estimate_for_margin
from ..evaluation.significance import Difference, compare_models, corrected_resampled_test, holm, mcnemar
from .completed_run import CompletedRun
from .cost_table import CostTable


@dataclass(frozen=True)
class ComparisonOptions:
    """What is compared besides the scores of all classes.

    Args:
        positive: classes that are also compared against the rest.
        rules: rules of their operating points; without `positive`, of each class against the rest.
        prevalence: prevalence of their PPV and NPV; None: that of the images.
        margins: tests of non-inferiority and equivalence to the first run.
        costs: costs of decisions, whose normalised expected cost is compared, too.
    """

    positive: Sequence[str] | None = None
    rules: Sequence[ThresholdRule] = ()
    prevalence: float | None = None
    margins: Sequence[Margin] = ()
    costs: CostTable | None = None


@dataclass
class Comparisons:
    """Differences between runs on the same images, second minus first.

    Args:
        tests: by pair and score, with tests of no difference (`compare_runs`).
        rates: by pair, positive classes and operating point, without tests (`compare_rates`).
        margin_tests: of non-inferiority and equivalence (`compare_with_first`).
    """

    tests: list[dict[str, Any]]
    rates: list[dict[str, Any]]
    margin_tests: list[dict[str, Any]]


def compare_all(runs: list[CompletedRun], options: ComparisonOptions) -> Comparisons:
    """Compares all pairs of runs on the same images."""
    models = {id(run): ModelScores(run.folds) for run in runs}
    return Comparisons(
        compare_runs(runs, options, models),
        compare_rates(runs, options),
        compare_with_first(runs, options, models),
    )


def compare_runs(
    runs: list[CompletedRun], options: ComparisonOptions, models: Mapping[int, ModelScores]
) -> list[dict[str, Any]]:
    """Tests the difference between each pair of runs on the same images, by score; p values are adjusted for all
    comparisons together.

    Args:
        models: scores of the runs by `id`.
    """
    positive = options.positive
    binary = {id(run): _binary_scores(run, positive) for run in runs if _has_classes(run, positive)}

    def compare(pair: tuple[CompletedRun, CompletedRun]) -> list[dict[str, Any]]:
        first, second = pair
        resampled = {}
        if first.is_cross_validated and first.num_training_images and second.num_training_images:
            resampled = _corrected_resampled_tests(first, second)
        found = []
        for difference in compare_models(models[id(first)], models[id(second)]):
            test = resampled.get(difference.score)
            corrected = {"corrected_resampled": test} if test else {}
            found.append(_difference_to_dict(first, second, difference) | corrected)
        if id(first) in binary:
            task = {"positive": list(positive or ())}
            for difference in compare_models(binary[id(first)], binary[id(second)]):
                found.append(_difference_to_dict(first, second, difference) | task)
        if options.costs:
            costs = options.costs.select(first.class_names, first.name)
            for decisions, difference in compare_expected_costs(first.folds, second.folds, costs).items():
                found.append(_difference_to_dict(first, second, difference) | {"decisions": decisions})
        return found

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # the pairs are independent
        comparisons = [comparison for found in pool.map(compare, _comparable_pairs(runs)) for comparison in found]
    return _adjust(comparisons)


def _comparable_pairs(runs: list[CompletedRun]) -> list[tuple[CompletedRun, CompletedRun]]:
    return [pair for pair in combinations(runs, 2) if not _different_data(*pair)]


def _adjust(comparisons: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds the p values that are adjusted for all comparisons together (Holm)."""
    for comparison, adjusted in zip(comparisons, holm([comparison["p_value"] for comparison in comparisons])):
        comparison["p_adjusted"] = adjusted
    return comparisons


def _has_classes(run: CompletedRun, names: Sequence[str] | None) -> bool:
    return bool(names) and set(names or ()) <= set(run.class_names)


def _binary_scores(run: CompletedRun, positive: Sequence[str] | None) -> ModelScores:
    ids = [run.class_names.index(name) for name in positive or ()]
    return ModelScores(OneVsRest.from_predictions(run.folds, ids).folds, binary=True)


def _difference_to_dict(first: CompletedRun, second: CompletedRun, difference: Difference) -> dict[str, Any]:
    values = asdict(difference)
    low, high = values.pop("interval") or (None, None)
    return values | {"first": first.name, "second": second.name, "images": first.num_images, "low": low, "high": high}


# Rates of classes against the rest


def compare_rates(runs: list[CompletedRun], options: ComparisonOptions) -> list[dict[str, Any]]:
    """Estimates the differences of the rates and the F1 of each class against the rest, and of the positive classes at
    each operating point; of the net benefit, too, if there are positive classes or operating points.

    Returns:
        By pair, classes and rule: `first`, `second`, `classes`, `rule`, `prevalence`, `scores` (name -> `difference`,
        `low`, `high`, `reason`) and `net_benefit` (`thresholds`, `difference`, `low`, `high`) or None.
    """
    pairs = _comparable_pairs(runs)
    found: list[dict[str, Any]] = []
    for classes, rule, prevalence in _rate_tasks(runs, options) if pairs else ():
        models = {id(run): _rate_scores(run, classes, rule, prevalence) for run in runs}
        facts = {"classes": list(classes), "rule": rule and str(rule), "prevalence": prevalence}
        for first, second in pairs:
            one, two = models[id(first)], models[id(second)]
            if one is None or two is None:
                continue
            scores = {name: _score_to_dict(estimate_difference(one, two, name)) for name in BINARY_SCORES}
            known = {name: score for name, score in scores.items() if score is not None}
            benefit = _compare_net_benefit(first, second, classes, options) if rule is None else None
            pair = {"first": first.name, "second": second.name, "scores": known, "net_benefit": benefit}
            found.append(facts | pair)
    return found


RateTask = tuple[tuple[str, ...], ThresholdRule | None, float | None]


def _rate_tasks(runs: list[CompletedRun], options: ComparisonOptions) -> list[RateTask]:
    """Returns what is compared: positive classes, rule (None: the predicted class) and prevalence."""
    each = [(name,) for name in runs[0].class_names]
    positive = [tuple(options.positive)] if options.positive else each if options.rules else []
    tasks: list[RateTask] = [(classes, None, None) for classes in each]
    for classes in positive:
        predicted = (classes, None, options.prevalence)
        tasks += [predicted] if predicted not in tasks else []
        tasks += [(classes, rule, options.prevalence) for rule in options.rules]
    return tasks


def _rate_scores(
    run: CompletedRun, classes: tuple[str, ...], rule: ThresholdRule | None, prevalence: float | None
) -> ModelScores | None:
    """Returns the scores of classes against the rest; None: the run does not have the classes or the threshold."""
    if not set(classes) < set(run.class_names):
        return None
    ids = [run.class_names.index(name) for name in classes]
    images = OneVsRest.from_predictions(run.folds, ids)
    if rule is None:
        return ModelScores(images.folds, prevalence, binary=True)
    others = OneVsRest.from_predictions(run.threshold_predictions, ids) if run.threshold_predictions else None
    if not images.has_scores or (others is None and rule.is_data_driven):
        return None
    try:
        thresholds = images.get_thresholds(rule, others)
    except UsageError:  # no image on one side
        return None
    return ModelScores(images.apply_thresholds(thresholds), prevalence, binary=True)


def _score_to_dict(difference: ScoreDifference | None) -> dict[str, Any] | None:
    if difference is None:
        return None
    low, high = difference.interval() or (None, None)
    return {"difference": difference.value, "low": low, "high": high, "reason": difference.reason}


def _compare_net_benefit(
    first: CompletedRun, second: CompletedRun, classes: tuple[str, ...], options: ComparisonOptions
) -> dict[str, Any] | None:
    is_requested = classes == tuple(options.positive) if options.positive else bool(options.rules)
    ids = [first.class_names.index(name) for name in classes]
    one, two = (OneVsRest.from_predictions(run.folds, ids) for run in (first, second))
    if not (is_requested and one.has_scores and two.has_scores):
        return None
    difference, intervals = one.benefit_difference(two)
    low, high = ([ends and ends[index] for ends in intervals] for index in (0, 1))
    return {"thresholds": THRESHOLDS.tolist(), "difference": difference, "low": low, "high": high}


# Non-inferiority and equivalence


def compare_with_first(
    runs: list[CompletedRun], options: ComparisonOptions, models: Mapping[int, ModelScores]
) -> list[dict[str, Any]]:
    """Tests whether the other runs are not inferior, or equivalent, to the first one, by margin.

    Returns:
        By run and margin: `kind`, `first`, `second`, `units`, `score`, `margin`, `difference`, `low`, `high` (95 %,
        for equivalence 90 %), `p_value` (one-sided, or the larger of two), `p_adjusted` (Holm), `level` and `shown`; or
        null p values with a `reason`.

    Raises:
        UsageError: If a score is not defined for the runs.
    """
    found: list[dict[str, Any]] = []
    for first, second in _comparable_pairs(runs):
        for margin in options.margins if first is runs[0] else ():
            one, two = models[id(first)], models[id(second)]
            if margin.score in BINARY_SCORES:
                one, two = (_binary_scores(run, options.positive) for run in (first, second))
            difference = estimate_for_margin(one, two, margin.score)
            if difference is None:
                code = EvaluationMessage.MARGIN_OF_UNDEFINED_SCORE
                raise UsageError(code, score=margin.score, first=first.name, second=second.name)
            low, high = difference.interval(1 - 2 * margin.level) or (None, None)
            facts = asdict(margin) | {"first": first.name, "second": second.name}
            facts |= {"units": "images" if one.group is None else "groups", "images": first.num_images}
            facts |= {"difference": difference.value, "low": low, "high": high, "level": margin.level}
            found.append(facts | {"p_value": margin.test(difference), "reason": difference.reason})
    _adjust([test for test in found if test["p_value"] is not None])
    for test in found:
        test["shown"] = test.setdefault("p_adjusted") is not None and test["p_adjusted"] <= test["level"]
    return found


def _different_data(first: CompletedRun, second: CompletedRun) -> str | None:
    """Returns what prevents the comparison of two runs: different `images`, `classes` or `labels`; None: nothing."""
    if first.file_names != second.file_names:
        return "images"
    if first.class_names != second.class_names:
        return "classes"
    folds = zip(first.folds, second.folds)
    return None if all(np.array_equal(fold.labels, other.labels) for fold, other in folds) else "labels"


def _corrected_resampled_tests(first: CompletedRun, second: CompletedRun) -> dict[str, dict[str, float]]:
    """Computes the corrected resampled t test over folds and seeds, by headline score."""
    first_scores, second_scores = (
        [headline_metrics(fold.confusion_matrices(), fold.ordered, fold.macro_over_labels) for fold in run.folds]
        for run in (first, second)
    )
    num_tested = float(np.mean([len(fold.labels) for fold in first.folds]))
    tests = {}
    for name in first_scores[0]:
        differences = [
            float(second_value - first_value)
            for first_fold, second_fold in zip(first_scores, second_scores)
            for first_value, second_value in zip(first_fold[name], second_fold[name])
        ]
        tests[name] = corrected_resampled_test(differences, num_tested, float(first.num_training_images or 0))
    return tests


def compare_errors(runs: list[CompletedRun]) -> Iterable[dict[str, Any]]:
    """Computes McNemar's test for each pair of runs; pairs with different images, classes or labels have `different`
    instead."""
    for first, second in combinations(runs, 2):
        pair = {"first": first.name, "second": second.name}
        if different := _different_data(first, second):
            yield pair | {"different": different}
            continue
        labels = np.concatenate([fold.labels for fold in first.folds])
        # One prediction per image: that of the first seed.
        first_ids, second_ids = (np.concatenate([fold.predicted[0] for fold in run.folds]) for run in (first, second))
        yield pair | {"images": len(labels), "mcnemar": mcnemar(labels, first_ids, second_ids, _get_groups(first))}


def _get_groups(run: CompletedRun) -> np.ndarray | None:
    """Returns the patient or video of each image of a run; None if a fold does not have them."""
    groups = [fold.groups for fold in run.folds if fold.groups is not None]
    return np.concatenate(groups) if len(groups) == len(run.folds) else None
