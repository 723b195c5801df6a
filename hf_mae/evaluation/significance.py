"""Significance tests between two models on the same images; the independent clusters are images, or patients or videos.

- `permutation_tests`: under the null hypothesis the models are exchangeable, so their predictions of each cluster
  are swapped at random; exact for any metric and any number of clusters.
- `mcnemar`: for independent images.
- `holm`: adjusts p values for multiple comparisons.
- `corrected_resampled_test`: between the folds of a cross-validation, which share training images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.stats import binomtest
from scipy.stats import t as student

from ..settings.metrics import METRICS
from .estimation import Influence, Sample, score_influence
from .intervals import PSEUDO_IMAGES_OF_DIFFERENCE, Estimate, Interval, IntervalReason, difference_interval
from .metrics import ConfusionMatrices, Floats, headline_metric_names, headline_metrics
from .prediction_table import Clusters, Predictions, clusters_from_predictions

PERMUTATIONS = 9_999
PERMUTATION_TEST, MCNEMAR_TEST = "permutation within {units}", "McNemar, exact"
PERMUTATION_BATCH_SIZE = 500  # permutations whose confusion matrices are in memory at once


@dataclass(frozen=True)
class Difference:
    """Difference of a metric: the second model minus the first.

    Args:
        units: `images` or `groups`: the independent clusters of the interval and the test.
        interval: 95 %; None: too few clusters.
        p_value: two-sided.
        reason: why the interval is None.
    """

    score: str
    units: str
    difference: float
    interval: Interval
    p_value: float
    test: str
    reason: IntervalReason | None = None


def compare_predictions(
    first: list[Predictions], second: list[Predictions], permutations: int = PERMUTATIONS, seed: int = 0
) -> list[Difference]:
    """Computes the differences of the `compared` metrics (means over folds and runs), with intervals and tests.

    Args:
        first, second: one entry per fold, of the same images in the same order; each may have several runs.

    Raises:
        ValueError: If the images differ.
    """
    estimates = estimate_differences(first, second, compared_metric_names(first[0].ordered))
    units = "images" if any(fold.groups is None for fold in first) else "groups"
    p_values = permutation_tests(first, second, permutations, seed)
    single_run = all(len(fold.predicted) == 1 for fold in [*first, *second])
    differences = []
    for name, estimate in estimates.items():
        p_value, test = p_values[name], PERMUTATION_TEST.format(units=units)
        if name == "accuracy" and units == "images" and single_run:
            labels = np.concatenate([fold.labels for fold in first])
            predicted = [np.concatenate([fold.predicted[0] for fold in folds]) for folds in (first, second)]
            p_value, test = float(mcnemar(labels, *predicted)["p_value"]), MCNEMAR_TEST
        differences.append(Difference(name, units, estimate.value, estimate.interval, p_value, test, estimate.reason))
    return differences


def estimate_differences(
    first: list[Predictions], second: list[Predictions], names: Sequence[str]
) -> dict[str, Estimate]:
    """Estimates the differences of metrics, second model minus first (means over folds and runs), with 95 % intervals.

    The interval is Student's, with the variance of the difference of the influences of each image on the metrics.

    Args:
        first, second: one entry per fold, of the same images in the same order; each may have several runs.
        names: names of metrics of confusion matrices (`METRICS`).

    Raises:
        ValueError: If the labels differ.
    """
    _require_equal_labels(first, second)
    samples = [Sample(folds, PSEUDO_IMAGES_OF_DIFFERENCE) for folds in (first, second)]
    estimates = {}
    for name in names:
        metric, function = METRICS[name], METRICS[name].function
        assert function is not None, name
        values = [sample.value(lambda m: function(ConfusionMatrices(m))) for sample in samples]  # noqa: B023
        width = metric.upper_bound(samples[0].num_classes) - metric.low
        estimates[name] = estimate_difference(
            samples, values, [score_influence(sample, name) for sample in samples], width
        )
    return estimates


def estimate_difference(
    samples: Sequence[Sample], values: Sequence[float], influences: Sequence[Influence], width: float
) -> Estimate:
    """Estimates the difference of a score, second model minus first, with its 95 % interval.

    Args:
        samples, values, influences: of the two models: predictions, score, and influence of the images on it.
        width: upper minus lower bound of the score.
    """
    difference = values[1] - values[0]
    if (reason := samples[0].reason) is not None:
        return Estimate(difference, None, reason)
    one, two = influences
    influence = Influence(
        (two.values - one.values) * _small_class_correction(*samples),
        one.information + two.information,
        one.pseudo_variance + two.pseudo_variance,
    )
    if influence.variance == 0:  # a score that no prediction changes: the one-off accuracy of two grades
        return Estimate(difference, None, IntervalReason.NOT_ESTIMABLE)
    design = influence.design(samples[0].group)
    variance = influence.variance * design.factor
    return Estimate(difference, difference_interval(difference, variance, design.degrees_of_freedom, width))


def _small_class_correction(first: Sample, second: Sample) -> NDArray[np.float64]:
    """Computes the factor of the influence of each image (images,) that corrects the variance for the fitted rates of
    small classes: sqrt(1 + (1 - 1 / classes) / (n - 1)), with the smallest n of the class and of the predictions."""
    factors = []
    for fold, other, matrices, other_matrices in zip(first.folds, second.folds, first.matrices, second.matrices):
        support = np.bincount(fold.labels, minlength=first.num_classes)
        smallest = support[fold.labels].astype(float)
        for predictions, counts in ((fold, matrices), (other, other_matrices)):
            predicted = counts.sum(-2)[np.arange(len(counts))[:, None], predictions.predicted]
            smallest = np.minimum(smallest, predicted.min(0))
        factors.append((1 + (1 - 1 / first.num_classes) / np.maximum(smallest - 1, 1)) ** 0.5)
    return np.concatenate(factors)


def compared_metric_names(ordered: bool) -> tuple[str, ...]:
    """Returns the names of the metrics whose differences are tested; `ordered`: the classes are grades."""
    return tuple(name for name in headline_metric_names(ordered) if METRICS[name].compared)


def _require_equal_labels(first: list[Predictions], second: list[Predictions]) -> None:
    for fold, other_fold in zip(first, second, strict=True):
        if not np.array_equal(fold.labels, other_fold.labels):
            raise ValueError("The labels of the two models differ.")


def _stack_runs(first: list[Predictions], second: list[Predictions]) -> list[Predictions]:
    """Stacks the runs of both models, fold by fold."""
    _require_equal_labels(first, second)
    folds = []
    for fold, other_fold in zip(first, second, strict=True):
        predicted = np.vstack([fold.predicted, other_fold.predicted])
        folds.append(Predictions(fold.labels, predicted, fold.num_classes, fold.groups, ordered=fold.ordered))
    return folds


def permutation_tests(
    first: list[Predictions],
    second: list[Predictions],
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    scores: Callable[[Floats], dict[str, Floats]] | None = None,
) -> dict[str, float]:
    """Computes two-sided p values of no difference, by score.

    A p value is the fraction of permutations, including the observed one, with at least the observed difference. All
    images of a patient or video are swapped together, in every fold. If the models have different numbers of runs, the
    runs that both have are compared.

    Args:
        scores: computes the scores (...) by name from confusion matrices (..., classes, classes); None: the headline
            metrics.
    """
    num_runs = min(min(len(fold.predicted) for fold in folds) for folds in (first, second))
    first, second = (
        [replace(fold, predicted=fold.predicted[:num_runs], class_scores=None) for fold in folds]
        for folds in (first, second)
    )
    clusters = clusters_from_predictions(_stack_runs(first, second))
    ordered = first[0].ordered
    permutation = _PairedPermutation(clusters, num_runs, scores or (lambda m: headline_metrics(m, ordered)))
    generator = np.random.default_rng(seed)
    changed = permutation.changed_clusters(len(clusters.counts))  # swapping equal predictions has no effect
    single, several = (np.flatnonzero(changed & side) for side in (clusters.counts == 1, clusters.counts > 1))
    unswapped = np.zeros((1, len(clusters.counts)))
    observed = {name: float(values[0]) for name, values in permutation.differences(unswapped).items()}
    num_extreme = dict.fromkeys(observed, 0)
    for start in range(0, permutations, PERMUTATION_BATCH_SIZE):
        size = (min(PERMUTATION_BATCH_SIZE, permutations - start), len(clusters.counts))
        swap_counts = np.zeros(size)
        swap_counts[:, single] = generator.integers(0, 2, size=(size[0], len(single)), dtype=np.uint8)
        swap_counts[:, several] = generator.binomial(clusters.counts[several], 0.5, size=(size[0], len(several)))
        for name, values in permutation.differences(swap_counts).items():
            num_extreme[name] += int((np.abs(values) >= abs(observed[name]) - 1e-12).sum())
    return {name: (1 + count) / (1 + permutations) for name, count in num_extreme.items()}


class _PairedPermutation:
    """Differences of metrics if two models swap their predictions of some clusters.

    An image changes two cells of a confusion matrix, and a patient a few, so the changes are stored as sparse matrices.
    """

    def __init__(self, clusters: Clusters, num_runs: int, scores: Callable[[Floats], dict[str, Floats]]):
        self._folds, self._scores = [], scores
        for matrices, members in zip(clusters.matrices, clusters.members):
            counts = clusters.counts[members].astype(float)
            first, second = (
                np.einsum("rckl,c->rkl", half, counts) for half in (matrices[:num_runs], matrices[num_runs:])
            )
            changes = [
                csr_array(change.reshape(len(members), -1)) for change in matrices[num_runs:] - matrices[:num_runs]
            ]
            self._folds.append((members, first, second, changes))

    def changed_clusters(self, count: int) -> NDArray[np.bool_]:
        """Returns the clusters whose predictions differ between the models (clusters,)."""
        changed = np.zeros(count, dtype=bool)
        for members, _, _, changes in self._folds:
            for change in changes:
                changed[members] |= np.diff(change.indptr) > 0
        return changed

    def differences(self, swap_counts: Floats) -> dict[str, Floats]:
        """Computes second model minus first (permutations,) by metric, from counts (permutations, clusters)."""
        differences: dict[str, Floats] = {}
        for members, first, second, changes in self._folds:
            for run, change in enumerate(changes):
                swapped = (swap_counts[:, members] @ change).reshape(len(swap_counts), *first.shape[1:])
                first_scores, second_scores = self._scores(first[run] + swapped), self._scores(second[run] - swapped)
                for name, score in first_scores.items():
                    difference = (second_scores[name] - score) / (len(changes) * len(self._folds))
                    differences[name] = differences.get(name, 0.0) + difference
        return differences


def mcnemar(
    labels: NDArray[Any], first: NDArray[Any], second: NDArray[Any], groups: NDArray[Any] | None = None
) -> dict[str, float | int | str]:
    """Performs McNemar's exact test of equal error rates, on the predictions (images,) of two runs.

    Images of one patient or video are not independent. With `groups` (images,), each group counts once, for the run
    that is right on more of its images.

    Returns:
        `only_first`, `only_second`: number of images (or groups) on which only that run is (more often) right;
        `p_value`, two-sided (binomial); `units`: `images` or `groups`.
    """
    advantage = (first == labels).astype(int) - (second == labels)
    if groups is not None:
        _, group = np.unique(groups, return_inverse=True)
        advantage = np.bincount(group, weights=advantage)
    only_first, only_second = int((advantage > 0).sum()), int((advantage < 0).sum())
    p_value = 1.0
    if only_first + only_second:
        p_value = float(binomtest(only_first, only_first + only_second, 0.5).pvalue)
    units = "images" if groups is None else "groups"
    return {"only_first": only_first, "only_second": only_second, "p_value": p_value, "units": units}


def holm(p_values: list[float]) -> list[float]:
    """Adjusts p values for multiple comparisons (Holm, 1979; method `holm` of statsmodels' `multipletests`)."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[int(index)] = largest
    return adjusted


def corrected_resampled_test(differences: list[float], num_test: float, num_train: float) -> dict[str, float]:
    """Performs the corrected resampled t test of no difference over the folds (and seeds) of a cross-validation.

    The variance accounts for shared training images: (1 / n + num_test / num_train) s^2 (Nadeau and Bengio, 2003,
    Machine Learning 52).

    Args:
        differences: second model minus first, per fold and seed.
        num_test, num_train: test and training images per fold.

    Returns:
        `p_value` (two-sided), `t`, `df`.
    """
    values = np.asarray(differences, dtype=float)
    count = len(values)
    variance = float(values.var(ddof=1)) if count > 1 else float("nan")
    error = ((1 / count + num_test / num_train) * variance) ** 0.5
    if not error > 0:
        return {"p_value": 1.0 if values.mean() == 0 else float("nan"), "t": float("nan"), "df": float(count - 1)}
    statistic = float(values.mean() / error)
    return {"p_value": float(2 * student.sf(abs(statistic), count - 1)), "t": statistic, "df": float(count - 1)}
