"""Significance tests between two models on the same images; the independent clusters are images, or patients or videos.

- `permutation_tests`, `score_permutation_tests`: under the null hypothesis the models are exchangeable, so their
  predictions of each cluster are swapped at random; exact for any metric and any number of clusters.
- `mcnemar`: for independent images.
- `holm`: adjusts p values for multiple comparisons.
- `corrected_resampled_test`: between the folds of a cross-validation, which share training images.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.stats import binomtest
from scipy.stats import t as student

from ..settings.metrics import METRICS
from .differences import RANKING_FUNCTIONS, ModelScores, estimate_difference, require_equal_labels
from .intervals import Interval, IntervalReason
from .metrics import Floats, headline_metrics
from .prediction_table import Clusters, Predictions, clusters_from_predictions
from .probability_metrics import RankingFunction

PERMUTATIONS = 9_999
PERMUTATION_TEST, MCNEMAR_TEST = "permutation within {units}", "McNemar, exact"
PERMUTATION_BATCH_SIZE = 500  # permutations whose confusion matrices are in memory at once
UNITS_WITHOUT_TIES = 1_000  # with more units, sums of single precision are enough


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
        ValueError: If the labels differ.
    """
    return compare_models(ModelScores(first), ModelScores(second), permutations, seed)


def compare_models(
    first: ModelScores, second: ModelScores, permutations: int = PERMUTATIONS, seed: int = 0
) -> list[Difference]:
    """Computes what `compare_predictions` does, from models whose scores may be known from other comparisons."""
    require_equal_labels(first.folds, second.folds)
    p_values = permutation_tests(first.folds, second.folds, permutations, seed)
    if all(fold.class_scores is not None for fold in [*first.folds, *second.folds]):
        p_values |= score_permutation_tests(first, second, permutations, seed)
    units = "images" if first.group is None else "groups"
    single_run = all(len(fold.predicted) == 1 for fold in [*first.folds, *second.folds])
    differences = []
    for name, metric in METRICS.items():
        found = estimate_difference(first, second, name) if metric.compared and name in p_values else None
        if found is None:
            continue
        p_value, test = p_values[name], PERMUTATION_TEST.format(units=units)
        if name == "accuracy" and units == "images" and single_run:
            labels = np.concatenate([fold.labels for fold in first.folds])
            predicted = [np.concatenate([fold.predicted[0] for fold in model.folds]) for model in (first, second)]
            p_value, test = float(mcnemar(labels, *predicted)["p_value"]), MCNEMAR_TEST
        differences.append(Difference(name, units, found.value, found.interval(), p_value, test, found.reason))
    return differences


def _stack_runs(first: list[Predictions], second: list[Predictions]) -> list[Predictions]:
    """Stacks the runs of both models, fold by fold."""
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
    ordered, over_labels = first[0].ordered, first[0].macro_over_labels
    scores = scores or (lambda matrices: headline_metrics(matrices, ordered, over_labels))
    permutation = _PairedPermutation(clusters, num_runs, scores)
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


def score_permutation_tests(
    first: ModelScores, second: ModelScores, permutations: int = PERMUTATIONS, seed: int = 0
) -> dict[str, float]:
    """Computes two-sided p values of no difference of the Brier score, log loss, AUROC and average precision.

    The models exchange their scores of complete units, as in `permutation_tests`. The statistic is a sum over the units
    that changes their signs. For the AUROC it is the difference of the AUROCs of ranks (Bandos, Rockette and Gur, 2005,
    Stat Med 24:2873); for the average precision, the difference of the influences on that of both models' ranks
    together, which equals the difference to first order.
    """
    num_runs = min(min(len(fold.predicted) for fold in model.folds) for model in (first, second))
    by_image: dict[str, list[Floats]] = {}
    for index, labels in enumerate(fold.labels for fold in first.folds):
        for name, losses in first.losses.items():
            means = [fold_losses[index][:num_runs].mean(0) for fold_losses in (losses, second.losses[name])]
            by_image.setdefault(name, []).append((means[1] - means[0]) / len(labels))
        ranks = [model.ranks[index][:num_runs] for model in (first, second)]
        for name, function in RANKING_FUNCTIONS.items() if first.score("roc_auc") else ():
            by_image.setdefault(name, []).append(_exchanged_ranks(ranks, labels, first.class_ids, function))
    values = np.stack([np.concatenate(parts) for parts in by_image.values()], axis=1)
    if first.group is not None:
        values = np.stack([np.bincount(first.group, column) for column in values.T], axis=1)
    else:  # the signs that are drawn do not depend on the order of the images
        largest = np.maximum(np.abs(values).max(0), 1e-300)
        values = values[np.lexsort(np.round(values / largest, 9).T)]
    return dict(zip(by_image, sign_change_tests(values, permutations, seed).tolist()))


def _exchanged_ranks(
    ranks: list[Floats], labels: NDArray[np.int64], class_ids: list[int], function: RankingFunction
) -> Floats:
    """Computes how much an exchange of the ranks (runs, images, classes) of two models changes the difference of their
    ranking scores, to first order and up to a factor (images,)."""
    changes = np.zeros(len(labels))
    for run, (column, label) in product(range(len(ranks[0])), enumerate(class_ids)):
        both = np.concatenate([model[run, :, column] for model in ranks])
        influence = function(both, np.tile(labels == label, 2)).influence
        changes += influence[len(labels) :] - influence[: len(labels)]
    return changes


def sign_change_tests(values: Floats, permutations: int = PERMUTATIONS, seed: int = 0) -> Floats:
    """Computes two-sided p values (scores,) of the hypothesis that the values (units, scores) of units are as likely
    with the opposite sign; all values of a unit change their signs together."""
    generator = np.random.default_rng(seed)
    values = values[(values != 0).any(1)]
    scale = np.abs(values).max(0, initial=1e-300)
    values = values[np.lexsort(np.round(values / scale, 9).T)]  # the order of the units has no effect
    if len(values) > UNITS_WITHOUT_TIES:
        values = values.astype(np.float32)
    observed, extreme = values.sum(0), np.zeros(values.shape[1], dtype=np.int64)
    tolerance = 10 * np.finfo(values.dtype).eps * np.abs(values).sum(0)
    for start in range(0, permutations, PERMUTATION_BATCH_SIZE):
        size = (min(PERMUTATION_BATCH_SIZE, permutations - start), len(values))
        bits = np.frombuffer(generator.bytes(size[0] * (size[1] // 8 + 1)), dtype=np.uint8).reshape(size[0], -1)
        changed = np.unpackbits(bits, axis=1, count=size[1]).astype(values.dtype)
        extreme += (np.abs(observed - 2 * changed @ values) >= np.abs(observed) - tolerance).sum(0)
    p_values: Floats = (1 + extreme) / (1 + permutations)
    return p_values


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
