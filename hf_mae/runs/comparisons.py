"""Tests of the differences between completed runs."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from ..evaluation.expected_cost import compare_expected_costs
from ..evaluation.metrics import headline_metrics
from ..evaluation.operating_points import OneVsRest
from ..evaluation.significance import Difference, compare_predictions, corrected_resampled_test, holm, mcnemar
from .completed_run import CompletedRun
from .cost_table import CostTable


def compare_runs(
    runs: list[CompletedRun], positive: Sequence[str] | None = None, costs: CostTable | None = None
) -> list[dict[str, Any]]:
    """Tests the difference between each pair of runs on the same images, by score; p values are adjusted for all
    comparisons together.

    Args:
        positive: classes that are also compared against the rest.
        costs: costs of decisions, whose normalised expected cost is compared, too.
    """
    comparisons: list[dict[str, Any]] = []
    for first, second in combinations(runs, 2):
        if _different_data(first, second):
            continue
        resampled = None
        if first.is_cross_validated and first.num_training_images and second.num_training_images:
            resampled = _corrected_resampled_tests(first, second)
        for difference in compare_predictions(first.folds, second.folds):
            corrected = {"corrected_resampled": resampled[difference.score]} if resampled else {}
            comparisons.append(_difference_to_dict(first, second, difference) | corrected)
        if positive and set(positive) <= set(first.class_names):
            ids = [first.class_names.index(name) for name in positive]
            task = {"positive": list(positive)}
            first_folds, second_folds = (OneVsRest.from_predictions(run.folds, ids).folds for run in (first, second))
            differences = compare_predictions(first_folds, second_folds)
            comparisons += [_difference_to_dict(first, second, difference) | task for difference in differences]
        if costs:
            by_rule = compare_expected_costs(first.folds, second.folds, costs.select(first.class_names, first.name))
            comparisons += [
                _difference_to_dict(first, second, difference) | {"decisions": name}
                for name, difference in by_rule.items()
            ]
    adjusted = holm([comparison["p_value"] for comparison in comparisons])
    for comparison, p_adjusted in zip(comparisons, adjusted):
        comparison["p_adjusted"] = p_adjusted
    return comparisons


def _difference_to_dict(first: CompletedRun, second: CompletedRun, difference: Difference) -> dict[str, Any]:
    values = asdict(difference)
    low, high = values.pop("interval") or (None, None)
    return values | {"first": first.name, "second": second.name, "images": first.num_images, "low": low, "high": high}


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
        [headline_metrics(fold.confusion_matrices(), fold.ordered) for fold in run.folds] for run in (first, second)
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
