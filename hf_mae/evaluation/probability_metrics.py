"""Metrics of predicted probabilities: AUROC, average precision, Brier score and log loss with 95 % intervals, and
calibration errors.

The intervals are of the effective number of images or patients (`intervals.effective_wilson_interval`); the log loss,
which has no upper bound, has Student's interval on the logarithm. Calibration errors have none: a sum of absolute
values is positive even for a perfectly calibrated model, and more so with few images, so intervals that resample images
do not contain the true error (docs/statistics.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from ..settings.metrics import METRICS, MetricKind, metric_names
from .estimation import Influence, group_ids, too_few_units
from .intervals import (
    Estimate,
    Floats,
    IntervalReason,
    effective_wilson_interval,
    log_scale_interval,
)
from .metrics import CALIBRATION_BINS, calibration_bins, expected_calibration_error, merge_ties, rank_ties
from .prediction_table import Predictions

PSEUDO_LABELS = 1.0  # images with another label that smooth the variance of a mean over images
PSEUDO_RANKS = 1.0  # images of each side that are ranked at random, shared by all pairs of classes


def estimate_probability_metrics(folds: list[Predictions]) -> dict[str, Estimate]:
    """Estimates the probability metrics of `METRICS`, as means over folds and runs; without AUROC and average precision
    if a class has no image, or all images.

    - `roc_auc`, `average_precision`: one-vs-rest, macro average (scikit-learn's).
    - `brier`: mean over images of the squared distance to the one-hot label, summed over classes (0 to 2; Brier, 1950).
    - `log_loss`: mean of -log of the true class's score (scikit-learn's, including its clipping).
    - `ece`, `adaptive_ece`: of the predicted class, over 15 bins of equal width, or of equally many images.
    - `classwise_ece`: over 15 bins of the score of each class, mean over classes (Kull et al., 2019).
    """
    estimates = {}
    names = metric_names(MetricKind.PROBABILITY)
    for metric in (METRICS[name] for name in names):
        if metric.function is not None:
            high = metric.upper_bound(folds[0].num_classes)
            estimates[metric.name] = estimate_mean(folds, metric.function, metric.low, high)
    for name, function in (("roc_auc", binary_auroc), ("average_precision", binary_average_precision)):
        if (ranking := estimate_ranking(folds, function, range(folds[0].num_classes))) is not None:
            estimates[name] = ranking
    for name, error in (("ece", _ece), ("classwise_ece", _classwise_ece), ("adaptive_ece", _adaptive_ece)):
        by_fold = [np.mean([error(run, fold.labels) for run in fold.known_scores]) for fold in folds]
        estimates[name] = Estimate(float(np.mean(by_fold)), None, IntervalReason.NOT_ESTIMABLE)
    return {name: estimates[name] for name in names if name in estimates}


# Means over images


def mean_influence(
    folds: Sequence[Predictions], per_image_loss: Callable[[Floats, NDArray[np.int64]], Floats]
) -> tuple[float, float, Influence]:
    """Computes a mean over images, folds and runs, its smoothed value, and the influence of the images.

    The smoothing adds an image whose label is the class with the next-highest score.

    Args:
        per_image_loss: values (images,), from the scores (images, classes) and labels (images,) of a run.
    """
    value = smoothed = pseudo_variance = 0.0
    values, count = [], len(folds)
    added = PSEUDO_LABELS / count
    for fold in folds:
        runs, size = fold.known_scores, len(fold.labels)
        losses = np.mean([per_image_loss(run, fold.labels) for run in runs], axis=0)
        other = float(np.mean([per_image_loss(run, _other_labels(run, fold.labels)).mean() for run in runs]))
        mean = float(losses.mean())
        value += mean / count
        smoothed += float((losses.sum() + added * other) / (size + added)) / count
        pseudo_variance += added * ((other - mean) / (size + added) / count) ** 2
        values.append((losses - mean) / (size * max(size - 1, 1)) ** 0.5 / count)
    influence = np.concatenate(values)
    information = np.concatenate([np.full(len(fold.labels), len(fold.labels) ** -2.0) for fold in folds])
    return value, smoothed, Influence(influence, information, pseudo_variance)


def _other_labels(scores: Floats, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the class with the highest score that is not the label (images,)."""
    others = scores.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    next_labels: NDArray[np.int64] = others.argmax(-1)
    return next_labels


def estimate_mean(
    folds: Sequence[Predictions],
    per_image_loss: Callable[[Floats, NDArray[np.int64]], Floats],
    low: float,
    high: float,
) -> Estimate:
    """Estimates a mean over images, folds and runs, such as the Brier score.

    Args:
        per_image_loss: values (images,), from the scores (images, classes) and labels (images,) of a run.
        low, high: range of the values; `high` may be infinite.
    """
    value, smoothed, influence = mean_influence(folds, per_image_loss)
    group = group_ids(folds)
    if (reason := too_few_units(sum(len(fold.labels) for fold in folds), group)) is not None:
        return Estimate(value, None, reason)
    design = influence.design(group)
    variance = influence.variance * design.factor
    df = min(design.degrees_of_freedom, influence.degrees_of_freedom, len(influence.values) - 1)
    if np.isinf(high) and value > 0:
        return Estimate(value, log_scale_interval(value, variance, smoothed, df))
    if np.isinf(high):  # all losses are 0: the greatest one is that of an image with another label
        high = smoothed * (len(influence.values) + PSEUDO_LABELS) / PSEUDO_LABELS
    return Estimate(value, effective_wilson_interval(value, variance, smoothed, df, low, high))


# Ranking: AUROC and average precision


@dataclass(frozen=True)
class Ranking:
    """Ranking score of one class against the rest.

    Args:
        value: the score.
        influence: of each image (images,).
        bias: second-order bias of the score.
        at_random: expected influence of an additional positive image that is ranked at random.
        random_variance: sum of the expected squared influences of a positive and a negative image that are ranked at
            random.
        small_sample: factor of the correction of the variance for few images of a side.
    """

    value: float
    influence: Floats
    bias: float
    at_random: float
    random_variance: float
    small_sample: float


def binary_auroc(scores: Floats, is_positive: NDArray[np.bool_]) -> Ranking:
    """Computes the AUROC of one class against the rest; the influences are DeLong's (1988) placements.

    Args:
        scores: (images,).
        is_positive: mask of the positive images (images,); neither empty nor full.
    """
    tie, positive, negative = _count_ties(scores, is_positive)
    sides = positive.sum(), negative.sum()
    above_negative = (negative.cumsum() - negative / 2) / sides[1]
    below_positive = 1 - (positive.cumsum() - positive / 2) / sides[0]
    placements = np.where(is_positive, above_negative[tie], below_positive[tie])
    value = float(placements[is_positive].mean())
    influence = (placements - value) / np.where(is_positive, sides[0], sides[1])
    random_variance = (1 / 12 + (0.5 - value) ** 2) * float(1 / sides[0] ** 2 + 1 / sides[1] ** 2)
    return Ranking(value, influence, 0.0, (0.5 - value) / float(sides[0]), random_variance, 1.0)


def binary_average_precision(scores: Floats, is_positive: NDArray[np.bool_]) -> Ranking:
    """Computes the average precision (scikit-learn's) of one class against the rest, and its influence function.

    A positive image raises the precision at its own score; the bias is the difference to the precision among the other
    images.

    Args:
        scores: (images,).
        is_positive: mask of the positive images (images,); not empty.
    """
    tie, positive, negative = _count_ties(scores, is_positive)
    tie, gain = len(positive) - 1 - tie, positive[::-1]  # from the highest score
    found = gain.cumsum()
    called = found + negative[::-1].cumsum()
    precision, positives = found / called, float(found[-1])
    value = float((gain * precision).sum() / positives)
    change_right = np.cumsum((gain * (called - found) / called**2)[::-1])[::-1]
    change_wrong = np.cumsum((gain * found / called**2)[::-1])[::-1]
    influence = np.where(is_positive, (precision - value + change_right)[tie], -change_wrong[tie]) / positives
    others = np.maximum(found - 1, 0) * positives / max(positives - 1, 1)
    total = others + called - found
    leave_one_out = np.divide(others, total, out=np.ones_like(total), where=total > 0)
    bias = value - float((gain * leave_one_out).sum() / positives)
    prevalence = positives / len(scores)
    random_variance = (prevalence * (1 - prevalence) / 12 + (prevalence - value) ** 2) / positives**2
    return Ranking(value, influence, bias, (prevalence - value) / positives, random_variance, 2.0)


def _count_ties(scores: Floats, is_positive: NDArray[np.bool_]) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Returns the number of the score of each image (images,), and how many positive and negative images have each
    score, from the lowest one (scores,)."""
    tie, lowest = rank_ties(scores)
    positive, negative = (np.bincount(tie[side], minlength=len(lowest)) for side in (is_positive, ~is_positive))
    return tie, positive.astype(float), negative.astype(float)


RankingFunction = Callable[[Floats, NDArray[np.bool_]], Ranking]


@dataclass(frozen=True)
class RankingInfluence:
    """Mean of ranking scores over classes, folds and runs.

    Args:
        smoothed: the score with the images that are ranked at random.
        bias: second-order bias.
        degrees_of_freedom: of the variance of independent images (Satterthwaite).
        least: number of images of the smallest side.
    """

    value: float
    smoothed: float
    bias: float
    influence: Influence
    degrees_of_freedom: float
    least: int


def ranking_influence(
    folds: Sequence[Predictions], function: RankingFunction, class_ids: Sequence[int]
) -> RankingInfluence | None:
    """Computes the mean of a ranking score over classes against the rest, folds and runs, and the influence of the
    images; None if a class has no image, or all images.

    Args:
        function: `binary_auroc` or `binary_average_precision`.
        class_ids: the classes.
    """
    num_classes, value, smoothed, bias, pseudo_variance = folds[0].num_classes, 0.0, 0.0, 0.0, 0.0
    values, information, squares, corrections, least = [], [], [], [], np.inf
    for fold in folds:
        sides = np.bincount(fold.labels, minlength=num_classes)
        if any(sides[label] in (0, len(fold.labels)) for label in class_ids):
            return None
        runs, influence = fold.known_scores, np.zeros(len(fold.labels))
        weight = 1 / (len(folds) * len(class_ids) * len(runs))
        added, small_sample = PSEUDO_RANKS / num_classes**2 / len(folds), 1.0
        for run, label in ((run, label) for run in runs for label in class_ids):
            ranking = function(run[:, label], fold.labels == label)
            influence += weight * ranking.influence
            value, bias, small_sample = (
                value + weight * ranking.value,
                bias + weight * ranking.bias,
                ranking.small_sample,
            )
            smoothed += weight * (ranking.value + added * ranking.at_random)
            pseudo_variance += added * ranking.random_variance * weight**2 * len(runs)
        correction = 1 + small_sample * (1 - 1 / num_classes) / np.maximum(sides - 1, 1)
        influence *= correction[fold.labels] ** 0.5
        by_class = np.bincount(fold.labels, influence**2, num_classes)
        values.append(influence)
        information.append((by_class / np.maximum(sides, 1))[fold.labels])
        squares.append(by_class)
        corrections.append(np.maximum(sides - 1, 1))
        least = min(least, *(min(sides[label], len(fold.labels) - sides[label]) for label in class_ids))
    found = Influence(np.concatenate(values), np.concatenate(information) + 1e-300, pseudo_variance)
    spread = float((np.concatenate(squares) ** 2 / np.concatenate(corrections)).sum())
    df = found.variance**2 / spread if spread > 0 else np.inf
    return RankingInfluence(value, smoothed, bias, found, df, int(least))


def estimate_ranking(
    folds: Sequence[Predictions], function: RankingFunction, class_ids: Sequence[int]
) -> Estimate | None:
    """Estimates the mean of a ranking score over classes against the rest, folds and runs; None if a class has no
    image, or all images.

    Args:
        function: `binary_auroc` or `binary_average_precision`.
        class_ids: the classes.
    """
    found = ranking_influence(folds, function, class_ids)
    if found is None:
        return None
    group = group_ids(folds)
    reason = too_few_units(sum(len(fold.labels) for fold in folds), group)
    if reason is None and found.least < 2:
        reason = IntervalReason.TOO_FEW_IMAGES
    if reason is not None:
        return Estimate(found.value, None, reason)
    design = found.influence.design(group)
    variance, df = found.influence.variance * design.factor, min(found.degrees_of_freedom, design.degrees_of_freedom)
    ends = [
        effective_wilson_interval(found.value, variance, found.smoothed, df, center=center)
        for center in {found.value, max(found.value - found.bias, 0.0)}
    ]
    return Estimate(found.value, (min(low for low, _ in ends), max(high for _, high in ends)))


# Calibration errors: sums over bins of |correct - score|, divided by the number of images


def _ece(scores: Floats, labels: NDArray[np.int64]) -> float:
    return float(expected_calibration_error(scores, labels)["ece"])


def _adaptive_ece(scores: Floats, labels: NDArray[np.int64]) -> float:
    """Bins of equally many images. Images with equal scores share a bin, so their order has no effect."""
    confidence = scores.max(-1)
    ranks = rankdata(merge_ties(confidence), method="min").astype(np.int64)  # scipy 1.18 returns floats
    bins = (ranks - 1) * CALIBRATION_BINS // len(confidence)
    return float(np.abs(np.bincount(bins, (scores.argmax(-1) == labels) - confidence)).sum() / len(labels))


def _classwise_ece(scores: Floats, labels: NDArray[np.int64]) -> float:
    """Bins of the score of each class, numbered class after class."""
    num_classes = scores.shape[-1]
    bins = calibration_bins(scores) + CALIBRATION_BINS * np.arange(num_classes)
    gaps = np.bincount(bins.ravel(), (np.eye(num_classes)[labels] - scores).ravel())
    return float(np.abs(gaps).sum() / scores.size)
