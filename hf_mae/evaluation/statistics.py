"""How sure a figure is: bootstrap intervals, and tests between runs on the same images."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from .confusion import HEADLINE, scores_of

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Predictions:
    """Class ids of the same images by one or several runs (seeds).

    Args:
        labels: (images,).
        predicted: (runs, images).
        num_classes: of the task.
        groups: patient or video of each image (images,), or None.
    """

    labels: np.ndarray
    predicted: np.ndarray
    num_classes: int
    groups: np.ndarray | None = None

    def confusion_matrices(self) -> np.ndarray:
        """(runs, classes, classes), row: label, column: prediction."""
        return _confusion(self, np.zeros(len(self.labels), dtype=int), 1)[:, 0]


def _confusion(data: Predictions, unit: np.ndarray, units: int) -> np.ndarray:
    """Confusion matrices (runs, units, classes, classes) of units of images."""
    matrices = np.zeros((len(data.predicted), units, data.num_classes, data.num_classes))
    for run, predicted in enumerate(data.predicted):
        np.add.at(matrices[run], (unit, data.labels, predicted), 1)
    return matrices


def resampled_scores(data: Predictions, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, np.ndarray]:
    """The headline scores of bootstrap resamples: (runs, resamples) each; every run sees the same draws.

    Images are drawn within their class, as many as it has. With groups, whole groups are drawn, within those of the
    same most frequent class. Drawing n of n images with replacement is a multinomial draw of how often each kind of
    image (of one label and one set of predictions) comes, which is what is drawn.
    """
    generator = np.random.default_rng(seed)
    if data.groups is None:
        kinds, kind, sizes = np.unique(
            np.vstack([data.labels, data.predicted]), axis=1, return_inverse=True, return_counts=True
        )
        strata, matrices = kinds[0], _confusion(data, kind.ravel(), len(sizes)) / sizes[:, None, None]
    else:
        _, group = np.unique(data.groups, return_inverse=True)
        by_class = np.zeros((group.max() + 1, data.num_classes))
        np.add.at(by_class, (group, data.labels), 1)
        strata, sizes = by_class.argmax(1), np.ones(len(by_class), dtype=np.int64)
        matrices = _confusion(data, group, len(sizes))
    drawn = np.zeros((resamples, len(sizes)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        count = int(sizes[members].sum())
        drawn[:, members] = generator.multinomial(count, sizes[members] / count, size=resamples)
    flat = matrices.reshape(len(matrices), len(sizes), -1)
    shape = (resamples, data.num_classes, data.num_classes)
    by_run = [scores_of((drawn @ matrix).reshape(shape)) for matrix in flat]
    return {name: np.stack([scores[name] for scores in by_run]) for name in HEADLINE}


def mean_resampled(folds: list[Predictions], resamples: int = RESAMPLES, seed: int = 0) -> dict[str, np.ndarray]:
    """The mean over folds (and their runs) of every resample: (resamples,) each."""
    drawn = [resampled_scores(fold, resamples, seed + number) for number, fold in enumerate(folds)]
    return {name: np.concatenate([scores[name] for scores in drawn]).mean(0) for name in HEADLINE}


def interval(values: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The percentile interval of resampled values."""
    tail = 50 * (1 - confidence)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def bootstrap_intervals(
    folds: list[Predictions], resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % intervals of the headline scores (of their mean over folds and runs), stratified and seeded."""
    return {name: interval(values) for name, values in mean_resampled(folds, resamples, seed).items()}


def mcnemar(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, groups: np.ndarray | None = None
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


def paired_bootstrap(
    first: list[Predictions], second: list[Predictions], resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Second minus first, on the same resamples of the same images.

    Args:
        first, second: one for each fold, of the same images in the same order; each may have several runs.

    Returns:
        By headline score: `difference`, `low`, `high` (95 %), and the two-sided `p_value` of no difference.
    """
    differences: dict[str, list[np.ndarray]] = {name: [] for name in HEADLINE}
    observed: dict[str, list[float]] = {name: [] for name in HEADLINE}
    for number, (one, two) in enumerate(zip(first, second)):
        if not np.array_equal(one.labels, two.labels):
            raise ValueError("The two runs' labels differ.")
        both = Predictions(one.labels, np.vstack([one.predicted, two.predicted]), one.num_classes, one.groups)
        drawn, real, runs = (
            resampled_scores(both, resamples, seed + number),
            both.confusion_matrices(),
            len(one.predicted),
        )
        for name, values in scores_of(real).items():
            observed[name].append(values[runs:].mean() - values[:runs].mean())
            differences[name].append(drawn[name][runs:].mean(0) - drawn[name][:runs].mean(0))
    result = {}
    for name in HEADLINE:
        values = np.mean(differences[name], axis=0)
        low, high = interval(values)
        # The share of resamples on the other side of 0, plus-one corrected, both tails.
        side = min((values <= 0).sum(), (values >= 0).sum())
        p_value = min(1.0, 2 * (side + 1) / (resamples + 1))
        result[name] = {"difference": float(np.mean(observed[name])), "low": low, "high": high, "p_value": p_value}
    return result
