"""Metrics of predicted probabilities: AUROC, Brier score and log loss with 95 % intervals, and calibration errors.

The intervals are the jackknife's. Calibration errors have none: a sum of absolute values is positive even for a
perfectly calibrated model, and more so with few images, so intervals that resample images do not contain the true error
(docs/statistics.md).
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from ..settings.metrics import METRICS, MetricKind, metric_names
from .intervals import Estimate, jackknife_interval, jackknife_mean, jackknife_statistic
from .metrics import CALIBRATION_BINS, Floats, expected_calibration_error
from .prediction_table import Clusters, Predictions, image_level_clusters


def estimate_probability_metrics(folds: list[Predictions]) -> dict[str, Estimate]:
    """Estimates the probability metrics of `METRICS`, as means over folds and runs; without AUROC if a class has no
    image, or all images.

    - `roc_auc`: one-vs-rest, macro average (scikit-learn's).
    - `brier`: mean over images of the squared distance to the one-hot label, summed over classes (0 to 2; Brier, 1950).
    - `log_loss`: mean of -log of the true class's score (scikit-learn's, including its clipping).
    - `ece`, `adaptive_ece`: of the predicted class, over 15 bins of equal width, or of equally many images.
    - `classwise_ece`: over 15 bins of the score of each class, mean over classes (Kull et al., 2019).
    """
    clusters, estimates = image_level_clusters(folds), {}
    names = metric_names(MetricKind.PROBABILITY)
    for metric in (METRICS[name] for name in names):
        if metric.function is not None:
            mean, replicates = jackknife_mean(folds, clusters, partial(_mean_over_runs, metric.function))
            value, bounds = float(mean), (metric.low, metric.upper_bound(folds[0].num_classes))
            estimates[metric.name] = Estimate(value, jackknife_interval(value, replicates, clusters, *bounds))
    value, replicates = jackknife_auroc(folds, clusters)
    if np.isfinite(value):
        estimates["roc_auc"] = Estimate(value, jackknife_interval(value, replicates, clusters))
    errors = {
        "ece": lambda scores, labels: expected_calibration_error(scores, labels)["ece"],
        "classwise_ece": _classwise_ece,
        "adaptive_ece": _adaptive_ece,
    }
    for name, error in errors.items():
        by_fold = [np.mean([error(run, fold.labels) for run in fold.known_scores]) for fold in folds]
        estimates[name] = Estimate(float(np.mean(by_fold)), None)
    return {name: estimates[name] for name in names if name in estimates}


def _mean_over_runs(function: Callable[[Floats, NDArray[np.int64]], Floats], fold: Predictions) -> Floats:
    """Computes a metric of images (images,), as a mean over runs."""
    mean: Floats = np.mean([function(run, fold.labels) for run in fold.known_scores], axis=0)
    return mean


def jackknife_auroc(
    folds: list[Predictions], clusters: Clusters, classes: Sequence[int] | None = None
) -> tuple[float, Floats]:
    """Computes the mean AUROC of classes (None: all) over folds and runs, and its replicates; NaN if a class has no
    image, or all images."""

    def mean_auroc(fold: Predictions, index: NDArray[np.int64], num_clusters: int) -> tuple[Floats, Floats]:
        results = [
            jackknife_binary_auroc(run[:, label], fold.labels == label, index, num_clusters)
            for run in fold.known_scores
            for label in classes or range(fold.num_classes)
        ]
        aurocs, replicates = zip(*results)
        return np.mean(aurocs), np.mean(replicates, axis=0)

    value, replicates = jackknife_statistic(folds, clusters, mean_auroc)
    return float(value), replicates


def jackknife_binary_auroc(
    scores: Floats, is_positive: NDArray[np.bool_], cluster_index: NDArray[np.int64], num_clusters: int
) -> tuple[float, Floats]:
    """Computes the AUROC of one class against the rest, and its replicates without each cluster; NaN if either side has
    no image.

    The AUROC is the fraction of concordant (positive, negative) pairs (Mann and Whitney), so a replicate subtracts the
    pairs with images of the cluster.

    Args:
        scores: (images,).
        is_positive: mask of the positive images (images,).
        cluster_index: cluster of each image (images,).
    """
    concordant = _concordant_pairs(scores, is_positive)
    total = concordant[is_positive].sum()
    counts = np.array(
        [np.bincount(cluster_index[side], minlength=num_clusters) for side in (is_positive, ~is_positive)], dtype=float
    )
    by_cluster = np.bincount(cluster_index, concordant, num_clusters)
    within = np.zeros(num_clusters)  # pairs of images of the same cluster, which `by_cluster` counts twice
    order, ends = np.argsort(cluster_index, kind="stable"), np.cumsum(counts.sum(0)).astype(int)
    for cluster in np.flatnonzero(counts.all(0)):
        images = order[ends[cluster] - int(counts[:, cluster].sum()) : ends[cluster]]
        within[cluster] = _concordant_pairs(scores[images], is_positive[images])[is_positive[images]].sum()
    sides = counts.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(total / sides.prod()), (total - by_cluster + within) / (sides[:, None] - counts).prod(0)


def _concordant_pairs(scores: Floats, is_positive: NDArray[np.bool_]) -> Floats:
    """Counts the images of the other side with which each image is in order (images,); ties count half."""
    ranks = rankdata(scores)
    pairs = np.zeros(len(scores))
    pairs[is_positive] = ranks[is_positive] - rankdata(scores[is_positive])
    negatives = ~is_positive
    pairs[negatives] = is_positive.sum() - (ranks[negatives] - rankdata(scores[negatives]))
    return pairs


# Calibration errors: sums over bins of |correct - score|, divided by the number of images


def _adaptive_ece(scores: Floats, labels: NDArray[np.int64]) -> float:
    """Bins of equally many images. Images with equal scores share a bin, so their order has no effect."""
    confidence = scores.max(-1)
    ranks = rankdata(confidence, method="min").astype(np.int64)  # scipy 1.18 returns floats
    bins = (ranks - 1) * CALIBRATION_BINS // len(confidence)
    return float(np.abs(np.bincount(bins, (scores.argmax(-1) == labels) - confidence)).sum() / len(labels))


def _classwise_ece(scores: Floats, labels: NDArray[np.int64]) -> float:
    """Bins of the score of each class, numbered class after class."""
    num_classes = scores.shape[-1]
    bins = np.clip(np.ceil(scores * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)  # (low, high]
    gaps = np.bincount(
        (bins + CALIBRATION_BINS * np.arange(num_classes)).ravel(), (np.eye(num_classes)[labels] - scores).ravel()
    )
    return float(np.abs(gaps).sum() / scores.size)
