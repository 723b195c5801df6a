"""Metrics of predicted probabilities with 95 % intervals: AUROC, Brier score, log loss and calibration errors.

AUROC, Brier score and log loss change little if one cluster (an image, or a patient or video) is left out; their
intervals are the jackknife's. A calibration error is a sum of absolute values, so it is positive even for a perfectly
calibrated model, and more so with few images. Its interval inverts a test: it contains the errors for which the
observed one is neither among the largest nor among the smallest 2.5 %. The bin gaps are scaled by a common factor, and
their noise, which all images of a patient share, is simulated (docs/statistics.md has the coverage).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import rankdata

from .intervals import CONFIDENCE, MIN_CLUSTERS, Estimate, Interval, jackknife_interval
from .metrics import CALIBRATION_BINS, Floats
from .prediction_table import Clusters, Predictions, image_level_clusters

# In display order. Smaller is better, except for the first.
PROBABILITY_TITLES = {
    "roc_auc": "AUROC",
    "brier": "Brier score",
    "log_loss": "log loss",
    "ece": "ECE",
    "classwise_ece": "class-wise ECE",
    "adaptive_ece": "adaptive ECE",
}
NOISE_SAMPLES = 2000  # simulated noise vectors of a calibration error
MAX_CLASSES = 100  # limit for an interval of the class-wise ECE, which has 15 bins per class


def estimate_probability_metrics(
    folds: list[Predictions], with_calibration_intervals: bool = True
) -> dict[str, Estimate]:
    """Estimates the metrics of `PROBABILITY_TITLES`, as means over folds and runs; without AUROC if a class has no
    image, or all images.

    - `roc_auc`: one-vs-rest, macro average (scikit-learn's).
    - `brier`: mean over images of the squared distance to the one-hot label, summed over classes (0 to 2; Brier, 1950).
    - `log_loss`: mean of -log of the true class's score (scikit-learn's, including its clipping).
    - `ece`, `adaptive_ece`: of the predicted class, over 15 bins of equal width, or of equally many images.
    - `classwise_ece`: over 15 bins of the score of each class, mean over classes (Kull et al., 2019).

    Args:
        with_calibration_intervals: False: calibration errors get no interval, which saves time with very many images.
    """
    clusters, cluster_indices = image_level_clusters(folds)
    estimates = {}
    for name, loss, upper_bound in (("brier", _brier, 2.0), ("log_loss", _log_loss, np.inf)):
        value, replicates = _jackknife_mean(folds, clusters, cluster_indices, loss)
        estimates[name] = Estimate(value, jackknife_interval(value, replicates, clusters, upper_bound=upper_bound))
    value, replicates = jackknife_auroc(folds, clusters, cluster_indices)
    if np.isfinite(value):
        estimates["roc_auc"] = Estimate(value, jackknife_interval(value, replicates, clusters))
    for name, bin_gaps, num_classes in (
        ("ece", _top_label_gaps, 1),
        ("classwise_ece", _classwise_gaps, None),
        ("adaptive_ece", _top_label_gaps_equal_mass, 1),
    ):
        estimates[name] = _calibration_error(
            folds, clusters, cluster_indices, bin_gaps, num_classes, with_calibration_intervals
        )
    return {name: estimates[name] for name in PROBABILITY_TITLES if name in estimates}


def _require_class_scores(predictions: Predictions) -> Floats:
    if predictions.class_scores is None:
        raise ValueError("The predictions have no class scores.")
    return predictions.class_scores


def _brier(scores: Floats, labels: NDArray[np.int64]) -> Floats:
    distances: Floats = ((scores - np.eye(scores.shape[-1])[labels]) ** 2).sum(-1)
    return distances


def _log_loss(scores: Floats, labels: NDArray[np.int64]) -> Floats:
    true_scores = scores[np.arange(len(labels)), labels]
    return -np.log(np.clip(true_scores, np.finfo(true_scores.dtype).eps, None))


def _jackknife_mean(
    folds: list[Predictions],
    clusters: Clusters,
    cluster_indices: list[NDArray[np.int64]],
    per_image_loss: Callable[[Floats, NDArray[np.int64]], Floats],
) -> tuple[float, Floats]:
    """Computes the mean over images, folds and runs, and its replicates without each cluster."""
    value, change, weight = 0.0, np.zeros(len(clusters.counts)), 1.0 / len(folds)
    for fold, cluster_index, members in zip(folds, cluster_indices, clusters.members):
        losses = np.mean([per_image_loss(run, fold.labels) for run in _require_class_scores(fold)], axis=0)
        mean, count = float(losses.mean()), len(losses)
        sums, sizes = (np.bincount(cluster_index, weights, len(members)) for weights in (losses, np.ones(count)))
        with np.errstate(invalid="ignore"):  # a cluster that is the complete fold leaves no images
            replicates = (mean * count - sums) / (count - sizes)
        value += weight * mean
        change[members] += weight * (replicates - mean)
    return value, value + change


def jackknife_auroc(
    folds: list[Predictions], clusters: Clusters, cluster_indices: list[NDArray[np.int64]]
) -> tuple[float, Floats]:
    """Computes the macro AUROC over folds and runs, and its replicates; NaN if a class has no image, or all images."""
    value, change, weight = 0.0, np.zeros(len(clusters.counts)), 1.0 / len(folds)
    for fold, cluster_index, members in zip(folds, cluster_indices, clusters.members):
        aurocs = [
            jackknife_binary_auroc(run[:, label], fold.labels == label, cluster_index, len(members))
            for run in _require_class_scores(fold)
            for label in range(fold.num_classes)
        ]
        mean = float(np.mean([auroc for auroc, _ in aurocs]))
        value += weight * mean
        change[members] += weight * (np.mean([replicates for _, replicates in aurocs], axis=0) - mean)
    return value, value + change


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
        num_clusters: number of clusters.
    """
    concordant = _concordant_pairs(scores, is_positive)
    total = concordant[is_positive].sum()
    counts = np.array(
        [np.bincount(cluster_index[side], minlength=num_clusters) for side in (is_positive, ~is_positive)], dtype=float
    )
    by_cluster = np.bincount(cluster_index, concordant, num_clusters)
    within = np.zeros(num_clusters)  # pairs of images of the same cluster, which `by_cluster` counts twice
    order = np.argsort(cluster_index, kind="stable")
    for cluster, images in zip(
        np.unique(cluster_index), np.split(order, np.flatnonzero(np.diff(cluster_index[order])) + 1)
    ):
        if 0 < is_positive[images].sum() < len(images):
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


# Calibration errors


def _equal_width_bins(scores: Floats) -> NDArray[np.int64]:
    bins: NDArray[np.int64] = np.ceil(scores * CALIBRATION_BINS).astype(int) - 1  # (low, high]
    return np.clip(bins, 0, CALIBRATION_BINS - 1)


def _top_label_gaps(scores: Floats, labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats]:
    """Returns the bin of each image, and its correctness minus its score (images, 1)."""
    confidence = scores.max(-1)
    return _equal_width_bins(confidence)[:, None], ((scores.argmax(-1) == labels) - confidence)[:, None]


def _top_label_gaps_equal_mass(scores: Floats, labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats]:
    confidence = scores.max(-1)
    ranks = rankdata(confidence, method="ordinal").astype(np.int64)  # scipy 1.18 returns floats
    bins = (ranks - 1) * CALIBRATION_BINS // len(confidence)
    return bins[:, None], ((scores.argmax(-1) == labels) - confidence)[:, None]


def _classwise_gaps(scores: Floats, labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats]:
    """Returns the same for every class (images, classes); the bins are numbered class after class."""
    num_classes = scores.shape[-1]
    return _equal_width_bins(scores) + CALIBRATION_BINS * np.arange(num_classes), np.eye(num_classes)[labels] - scores


def _calibration_error(
    folds: list[Predictions],
    clusters: Clusters,
    cluster_indices: list[NDArray[np.int64]],
    bin_gaps: Callable[[Floats, NDArray[np.int64]], tuple[NDArray[np.int64], Floats]],
    num_classes: int | None,
    with_interval: bool,
) -> Estimate:
    """Computes the sum of the absolute bin gaps, each weighted by its fraction of the images; mean over folds, runs
    (and classes).

    Args:
        bin_gaps: bin and gap of each image (images, classes or 1).
        num_classes: number of classes of the mean; None: all.
        with_interval: whether to compute the interval.
    """
    gaps, noise, weights = [], [], []
    for fold, cluster_index, members in zip(folds, cluster_indices, clusters.members):
        num_images = len(fold.labels)
        sizes = np.bincount(cluster_index, minlength=len(members))
        for run in _require_class_scores(fold):
            bins, image_gaps = bin_gaps(run, fold.labels)
            num_bins = int(bins.max()) + 1
            flat_index = (cluster_index[:, None] * num_bins + bins).ravel()
            gap_sums = np.bincount(flat_index, image_gaps.ravel(), len(members) * num_bins)
            cluster_gaps = gap_sums.reshape(len(members), num_bins) / num_images
            total = cluster_gaps.sum(0)
            gaps.append(total)
            if with_interval and num_bins <= MAX_CLASSES * CALIBRATION_BINS:
                influence = np.zeros((len(clusters.counts), num_bins))
                deviation = cluster_gaps - sizes[:, None] / num_images * total
                influence[members] = deviation * (num_images / np.maximum(num_images - sizes, 1))[:, None]
                noise.append(influence)
            weights.append(
                np.full(
                    num_bins, 1 / (len(_require_class_scores(fold)) * len(folds) * (num_classes or fold.num_classes))
                )
            )
    all_gaps, all_weights = np.concatenate(gaps), np.concatenate(weights)
    value = float(all_weights @ np.abs(all_gaps))
    if not noise:
        return Estimate(value, None)
    return Estimate(value, _invert_test(value, all_gaps, np.concatenate(noise, axis=1), all_weights, clusters))


def _invert_test(value: float, bin_gaps: Floats, noise: Floats, weight: Floats, clusters: Clusters) -> Interval:
    """Computes the interval of the errors for which `value` is neither among the largest nor among the smallest.

    Args:
        bin_gaps: signed gaps of the bins (bins,).
        noise: deviation of each cluster from its expected fraction of the gaps (clusters, bins).
        weight: weight of each bin (bins,).
    """
    if clusters.n_eff < MIN_CLUSTERS:
        return None
    generator, shrinkage = np.random.default_rng(0), (len(clusters.counts) - 1) / len(clusters.counts)
    svd = np.linalg.svd(noise * shrinkage**0.5, full_matrices=False)
    samples = generator.standard_normal((NOISE_SAMPLES, len(svd.S))) @ (svd.S[:, None] * svd.Vh)
    df = clusters.n_eff - 1
    # Subtracting the mean reduced the variance of the noise; the factor 1 + 1 / n_eff compensates for it.
    samples *= (df / generator.chisquare(df, NOISE_SAMPLES))[:, None] ** 0.5 * (1 + 1 / clusters.n_eff)

    def excess(factor: float, quantile: float) -> float:
        return float(np.quantile(np.abs(factor * bin_gaps + samples) @ weight, quantile)) - value

    bounds, tail = [], (1 - CONFIDENCE) / 2
    for quantile in (1 - tail, tail):
        if excess(0.0, quantile) >= 0:
            bounds.append(0.0)
            continue
        largest = 2.0
        while excess(largest, quantile) < 0:
            largest *= 2
        bounds.append(float(brentq(excess, 0.0, largest, args=(quantile,), xtol=1e-4)) * value)
    return bounds[0], max(bounds[1], value)
