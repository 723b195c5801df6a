"""Score intervals and tests of the difference of paired proportions, for margins (non-inferiority, equivalence).

The variance of a difference is that of the probabilities with the greatest likelihood among those with the tested
difference (Tango, 1998, Stat Med 17:891), so tests keep their level also if a model has no errors, or predicts one
class. Means over classes are weighted sums of the differences of the classes; the multiplier of the constraint is
shared by all (as for the sums of proportions in `intervals.score_interval`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr
from scipy.stats import norm

from .differences import ModelScores, ScoreDifference, estimate_difference
from .intervals import CONFIDENCE, MIN_UNITS, Floats, Interval, IntervalReason

SCORES = ("accuracy", "one_off_accuracy", "macro_recall", "balanced_accuracy", "sensitivity", "specificity")
MIN_CLASS_IMAGES = 10  # with fewer, one error in a class with a recall near 1 is significant too often


@dataclass(frozen=True)
class PairedDifference:
    """Weighted sum of differences of paired proportions, second minus first; has the methods of `ScoreDifference`.

    Args:
        images: number of images of each class (classes,).
        only_first, only_second: numbers of images on which only that model is right (classes,).
    """

    images: Floats
    only_first: Floats
    only_second: Floats
    reason: IntervalReason | None = None

    @property
    def value(self) -> float:
        """Mean of the differences of the classes."""
        return float(np.mean((self.only_second - self.only_first) / self.images))

    def _constrained(self, multiplier: float) -> tuple[float, float]:
        """Returns the difference of the probabilities with the greatest likelihood, and its standard error."""
        n, first, second = self.images, self.only_first, self.only_second
        both, slope = n - first - second, multiplier**2 + (second - first) * multiplier
        p, q = slope + n**2 / 3, -2 * n**3 / 27 - n * slope / 3 + both * multiplier**2
        angle = np.arccos(np.clip(-1.5 * q / p * (3 / p) ** 0.5, -1, 1)) / 3
        root = np.maximum(2 * (p / 3) ** 0.5 * np.cos(angle) + n / 3, abs(multiplier))
        equal = both / root
        if multiplier > 0:
            loss = first / (root + multiplier)
            gain = np.clip(1 - loss - equal, 0, 1)
        else:
            gain = second / (root - multiplier)
            loss = np.clip(1 - gain - equal, 0, 1)
        count = len(n)
        fitted = 1 + (count - 1) / count / np.maximum(n - 1, 1)
        variance = np.maximum(gain + loss - (gain - loss) ** 2, 0) / n * fitted
        return float(np.mean(gain - loss)), float(variance.sum() ** 0.5 / count)

    def _solve(self, is_above: Callable[[float, float], bool]) -> tuple[float, float]:
        """Finds the smallest difference, with its standard error, that fulfils a condition."""
        low, high = -25.0, 25.0  # of the inverse hyperbolic sine of the multiplier
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if is_above(*self._constrained(float(np.sinh(middle)))) else (middle, high)
        return self._constrained(float(np.sinh(high)))

    def p_value_above(self, limit: float) -> float | None:
        """Computes the one-sided p value of the hypothesis that the difference is at most `limit`."""
        if not -1 < limit < 1:
            return 1.0 if limit >= 1 else 0.0
        _, error = self._solve(lambda difference, _: difference >= limit)
        return float(ndtr((limit - self.value) / max(error, 1e-12)))

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Computes the interval of the differences that are not rejected."""
        value, quantile = self.value, float(norm.ppf((1 + confidence) / 2))
        low, _ = self._solve(lambda difference, error: difference >= value - quantile * error)
        high, _ = self._solve(lambda difference, error: difference > value + quantile * error)
        return min(low, value), max(high, value)


def estimate_for_margin(
    first: ModelScores, second: ModelScores, name: str
) -> ScoreDifference | PairedDifference | None:
    """Estimates the difference of a score for tests at a margin; None: it is not defined.

    Independent images, `SCORES` and at least ten images of each class: `PairedDifference`. Other scores, patients,
    folds and several runs: `estimate_difference`. A macro precision has no test if a model predicts a class fewer than
    three times: it changes from 0 to any value with one prediction.
    """
    found = estimate_difference(first, second, name)
    if found is None or found.reason is not None:
        return found
    if name == "macro_precision" and (_has_rare_prediction(first) or _has_rare_prediction(second)):
        return replace(found, reason=IntervalReason.TOO_FEW_IMAGES)
    return _count_pairs(first, second, name) or found


def _has_rare_prediction(model: ModelScores) -> bool:
    return any(
        ((counts.sum(-2) < MIN_UNITS) & ((counts.sum(-1) + counts.sum(-2)) > 0)).any()
        for counts in model.sample.matrices
    )


def _count_pairs(first: ModelScores, second: ModelScores, name: str) -> PairedDifference | None:
    """Counts the images by class; None: the score, or the images, are not those of a `PairedDifference`."""
    runs = [run for model in (first, second) for fold in model.folds for run in fold.predicted]
    if name not in SCORES or first.group is not None or len(runs) != 2:
        return None
    labels, distance = first.folds[0].labels, 1 if name == "one_off_accuracy" else 0
    if name == "macro_recall" and not set(runs[0]) | set(runs[1]) <= set(labels):
        return None
    right = [np.abs(run - labels) <= distance for run in runs]
    if name in ("accuracy", "one_off_accuracy"):
        sides = [np.ones(len(labels), dtype=bool)]
    else:
        classes = {"sensitivity": [1], "specificity": [0]}.get(name, np.unique(labels).tolist())
        sides = [labels == label for label in classes]
        if min(side.sum() for side in sides) < MIN_CLASS_IMAGES:
            return None
    counts = [[side.sum(), (side & right[0] & ~right[1]).sum(), (side & right[1] & ~right[0]).sum()] for side in sides]
    return PairedDifference(*np.array(counts, dtype=float).T)
