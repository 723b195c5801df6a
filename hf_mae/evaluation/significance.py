"""Tests between two models on the same images, in the unit that is independent: images, or patients and videos.

- `permutation_tests`: under the null the two models are exchangeable, so their predictions of each unit are exchanged
  at random; exact for any score, and for any number of units.
- `mcnemar`: on images alone, where these are independent.
- `holm`: p values of many comparisons.
- `corrected_resampled_test`: between the folds of a cross-validation, which share training images.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.stats import binomtest
from scipy.stats import t as student

from .confusion import ORDINAL, Floats, headline_metric_names, headline_metrics
from .intervals import Interval, difference_interval, jackknife_replicates
from .prediction_table import Clusters, Predictions, clusters_from_predictions

PERMUTATIONS = 9_999
COMPARED_METRICS = ("macro_f1", "accuracy", "mcc")  # and `ORDINAL` of grades
PERMUTATION_TEST, MCNEMAR_TEST = "permutation within {units}", "McNemar, exact"
PERMUTATION_BATCH_SIZE = 500  # permutations whose confusion matrices are held


@dataclass(frozen=True)
class Difference:
    """The second model minus the first.

    Args:
        units: `images` or `groups`: what was left out, and exchanged.
        interval: 95 %; None: there are too few units.
        p_value: two-sided.
    """

    score: str
    units: str
    difference: float
    interval: Interval
    p_value: float
    test: str


def compare_predictions(
    first: list[Predictions], second: list[Predictions], permutations: int = PERMUTATIONS, seed: int = 0
) -> list[Difference]:
    """Differences of macro F1, accuracy and MCC (means over folds and runs), with intervals and tests.

    Args:
        first, second: one for each fold, of the same images in the same order; each may have several runs.

    Raises:
        ValueError: they are not of the same images.
    """
    units = clusters_from_predictions(_stack_runs(first, second))
    ordered = first[0].ordered
    value, without = jackknife_replicates(
        units, lambda matrices: _metric_differences(matrices, len(first[0].predicted), ordered)
    )
    p_values = permutation_tests(first, second, permutations, seed)
    single = all(len(fold.predicted) == 1 for fold in [*first, *second])
    found = []
    for name in (*COMPARED_METRICS, *(ORDINAL if ordered else ())):
        p_value, test = p_values[name], PERMUTATION_TEST.format(units=units.kind)
        if name == "accuracy" and units.kind == "images" and single:
            labels = np.concatenate([fold.labels for fold in first])
            one, two = (np.concatenate([fold.predicted[0] for fold in folds]) for folds in (first, second))
            p_value, test = float(mcnemar(labels, one, two)["p_value"]), MCNEMAR_TEST
        reach = difference_interval(value[name], without[name], units)
        found.append(Difference(name, units.kind, value[name], reach, p_value, test))
    return found


def _stack_runs(first: list[Predictions], second: list[Predictions]) -> list[Predictions]:
    """The runs of both models in one, fold by fold."""
    together = []
    for one, two in zip(first, second, strict=True):
        if not np.array_equal(one.labels, two.labels):
            raise ValueError("The two models' labels differ.")
        both = np.vstack([one.predicted, two.predicted])
        together.append(Predictions(one.labels, both, one.num_classes, one.groups, ordered=one.ordered))
    return together


def _metric_differences(matrices: Floats, num_first_runs: int, ordered: bool) -> dict[str, Floats]:
    """Second minus first (1, ...), of matrices whose first `num_first_runs` runs are the first model's."""
    found = headline_metrics(matrices, ordered)
    return {name: (of[num_first_runs:].mean(0) - of[:num_first_runs].mean(0))[None] for name, of in found.items()}


def permutation_tests(
    first: list[Predictions], second: list[Predictions], permutations: int = PERMUTATIONS, seed: int = 0
) -> dict[str, float]:
    """Two-sided p values of no difference, by headline score: the share of exchanges, the real one among them, that
    differ at least as much.

    A patient or video is exchanged as a whole, in every fold in which it stands. Of models with different numbers of
    runs as many are compared as both have.
    """
    runs = min(min(len(fold.predicted) for fold in folds) for folds in (first, second))
    first, second = ([_truncate_runs(fold, runs) for fold in folds] for folds in (first, second))
    units = clusters_from_predictions(_stack_runs(first, second))
    exchange = _PairedPermutation(units, runs, first[0].ordered)
    generator = np.random.default_rng(seed)
    real = {name: float(values[0]) for name, values in exchange.differences(np.zeros((1, len(units.counts)))).items()}
    as_much = dict.fromkeys(real, 0)
    for start in range(0, permutations, PERMUTATION_BATCH_SIZE):
        size = (min(PERMUTATION_BATCH_SIZE, permutations - start), len(units.counts))
        exchanged = generator.binomial(units.counts, 0.5, size=size).astype(np.float64)
        for name, values in exchange.differences(exchanged).items():
            as_much[name] += int((np.abs(values) >= abs(real[name]) - 1e-12).sum())
    return {name: (1 + count) / (1 + permutations) for name, count in as_much.items()}


def _truncate_runs(predictions: Predictions, num_runs: int) -> Predictions:
    return replace(predictions, predicted=predictions.predicted[:num_runs], class_scores=None)


class _PairedPermutation:
    """Two models whose predictions of units change sides.

    An image changes two cells of a confusion matrix, and a patient some: what changes is kept sparse.
    """

    def __init__(self, clusters: Clusters, num_runs: int, ordered: bool):
        self._folds, self._ordered = [], ordered
        for matrices, members in zip(clusters.matrices, clusters.members):
            times = clusters.counts[members].astype(float)
            one, two = (np.einsum("rukl,u->rkl", part, times) for part in (matrices[:num_runs], matrices[num_runs:]))
            change = matrices[num_runs:] - matrices[:num_runs]
            self._folds.append((members, one, two, [csr_array(of_run.reshape(len(members), -1)) for of_run in change]))

    def differences(self, swap_counts: Floats) -> dict[str, Floats]:
        """Second minus first (permutations,), by headline score.

        Args:
            swap_counts: how many images, or whether a group, of each unit changed sides (permutations, units).
        """
        found = {name: np.zeros(len(swap_counts)) for name in headline_metric_names(self._ordered)}
        for members, one, two, changes in self._folds:
            for run, change in enumerate(changes):
                moved = (swap_counts[:, members] @ change).reshape(len(swap_counts), *one.shape[1:])
                left, right = (headline_metrics(part, self._ordered) for part in (one[run] + moved, two[run] - moved))
                for name in found:
                    found[name] += (right[name] - left[name]) / (len(changes) * len(self._folds))
        return found


def mcnemar(
    labels: NDArray[Any], first: NDArray[Any], second: NDArray[Any], groups: NDArray[Any] | None = None
) -> dict[str, float | int | str]:
    """McNemar's exact test on two runs' predictions (images,): do they err equally often?

    Images of one patient or video say the same thing many times, so with `groups` (images,) each of these counts once,
    for the run that is right on more of its images.

    Returns:
        `only_first`, `only_second`: images, or groups, on which only that run is (more often) right; `p_value`,
        two-sided (binomial); `units`: `images` or `groups`.
    """
    better = (first == labels).astype(int) - (second == labels)
    if groups is not None:
        _, group = np.unique(groups, return_inverse=True)
        better = np.bincount(group, weights=better)
    only_first, only_second = int((better > 0).sum()), int((better < 0).sum())
    p_value = 1.0
    if only_first + only_second:
        p_value = float(binomtest(only_first, only_first + only_second, 0.5).pvalue)
    units = "images" if groups is None else "groups"
    return {"only_first": only_first, "only_second": only_second, "p_value": p_value, "units": units}


def holm(p_values: list[float]) -> list[float]:
    """p values adjusted for their number, in their order: Holm, 1979 (`statsmodels`' multipletests, method `holm`)."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[int(place)] = largest
    return adjusted


def corrected_resampled_test(differences: list[float], num_test: float, num_train: float) -> dict[str, float]:
    """Student's test of no difference over the folds (and seeds) of a cross-validation, with a variance that knows that
    folds share training images: (1 / n + tested / trained) s^2, after Nadeau and Bengio, 2003, Machine Learning 52.

    Args:
        differences: second minus first, of each fold and seed.
        tested, trained: images of a fold that are evaluated, and that are trained on.

    Returns:
        `p_value` (two-sided), `t`, `df`.
    """
    values = np.asarray(differences, dtype=float)
    count = len(values)
    spread = float(values.var(ddof=1)) if count > 1 else float("nan")
    error = ((1 / count + num_test / num_train) * spread) ** 0.5
    if not error > 0:
        return {"p_value": 1.0 if values.mean() == 0 else float("nan"), "t": float("nan"), "df": float(count - 1)}
    statistic = float(values.mean() / error)
    return {"p_value": float(2 * student.sf(abs(statistic), count - 1)), "t": statistic, "df": float(count - 1)}
