"""How good the scores of the classes are, as probabilities: AUROC, Brier score, log loss and calibration errors, each
with its 95 % interval.

AUROC, Brier score and log loss change little where one unit (an image, or a patient or video) is left out: their
intervals are the jackknife's, as those of the other scores. A calibration error is a sum of absolute values: it is
above zero for a perfect model too, the more so the fewer images there are. Its interval is where the error lies of
which what was seen is neither among the largest nor the smallest 2.5 %: the gaps of the bins are made larger or smaller
together, and their noise, which patients have as a whole, is drawn (docs/statistics.md tells what that is worth).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import rankdata

from .confusion import Floats
from .intervals import CONFIDENCE, MIN_CLUSTERS, Estimate, Interval, jackknife_interval
from .metrics import CALIBRATION_BINS
from .prediction_table import Clusters, Predictions, image_level_clusters

# In the order in which they are shown; smaller is better but for the first.
PROBABILITY_TITLES = {
    "roc_auc": "AUROC",
    "brier": "Brier score",
    "log_loss": "log loss",
    "ece": "ECE",
    "classwise_ece": "class-wise ECE",
    "adaptive_ece": "adaptive ECE",
}
NOISE_SAMPLES = 2000  # of a calibration error's noise
MAX_CLASSES = 100  # whose class-wise error has an interval: its bins are 15 times as many


def estimate_probability_metrics(
    folds: list[Predictions], with_calibration_intervals: bool = True
) -> dict[str, Estimate]:
    """`PROBABILITY_TITLES`, as means over folds and runs; AUROC is left out where a class has no image, or all.

    - `roc_auc`: each class against the rest, macro (scikit-learn's).
    - `brier`: mean over images of the squared distance to the true class, summed over classes (0 to 2; Brier, 1950).
    - `log_loss`: mean of -log of the true class's score (scikit-learn's, also its clipping).
    - `ece`, `adaptive_ece`: of the predicted class, over 15 bins of equal width, or of equally many images.
    - `classwise_ece`: of every class over 15 bins of its score, mean over classes (Kull et al., 2019).

    Args:
        with_calibration_intervals: False: calibration errors without intervals, which take time where there are very many images.
    """
    units, places = image_level_clusters(folds)
    found = {}
    for name, of_images in (("brier", _brier), ("log_loss", _log_loss)):
        value, without = _jackknife_mean(folds, units, places, of_images)
        highest = 2.0 if name == "brier" else np.inf
        found[name] = Estimate(value, jackknife_interval(value, without, units, upper_bound=highest))
    value, without = jackknife_auroc(folds, units, places)
    if np.isfinite(value):
        found["roc_auc"] = Estimate(value, jackknife_interval(value, without, units))
    for name, bins, width in (
        ("ece", _top_label_gaps, 1),
        ("classwise_ece", _classwise_gaps, None),
        ("adaptive_ece", _top_label_gaps_equal_mass, 1),
    ):
        found[name] = _calibration_error(folds, units, places, bins, width, with_calibration_intervals)
    return {name: found[name] for name in PROBABILITY_TITLES if name in found}


def _require_class_scores(predictions: Predictions) -> Floats:
    if predictions.class_scores is None:
        raise ValueError("These predictions have no scores of the classes.")
    return predictions.class_scores


def _brier(scores: Floats, labels: NDArray[np.int64]) -> Floats:
    distances: Floats = ((scores - np.eye(scores.shape[-1])[labels]) ** 2).sum(-1)
    return distances


def _log_loss(scores: Floats, labels: NDArray[np.int64]) -> Floats:
    own = scores[np.arange(len(labels)), labels]
    return -np.log(np.clip(own, np.finfo(own.dtype).eps, None))


def _jackknife_mean(
    folds: list[Predictions],
    clusters: Clusters,
    cluster_indices: list[NDArray[np.int64]],
    per_image_loss: Callable[[Floats, NDArray[np.int64]], Floats],
) -> tuple[float, Floats]:
    """A mean over images, over folds and runs, and the same without each unit."""
    value, change, weight = 0.0, np.zeros(len(clusters.counts)), 1.0 / len(folds)
    for fold, place, members in zip(folds, cluster_indices, clusters.members):
        values = np.mean([per_image_loss(run, fold.labels) for run in _require_class_scores(fold)], axis=0)
        mean, count = float(values.mean()), len(values)
        sums, sizes = (np.bincount(place, part, len(members)) for part in (values, np.ones(count)))
        with np.errstate(invalid="ignore"):  # a unit that is the whole fold leaves nothing
            without = (mean * count - sums) / (count - sizes)
        value += weight * mean
        change[members] += weight * (without - mean)
    return value, value + change


def jackknife_auroc(
    folds: list[Predictions], clusters: Clusters, cluster_indices: list[NDArray[np.int64]]
) -> tuple[float, Floats]:
    """The macro AUROC over folds and runs, and the same without each unit; NaN where a class has no image, or all."""
    value, change, weight = 0.0, np.zeros(len(clusters.counts)), 1.0 / len(folds)
    for fold, place, members in zip(folds, cluster_indices, clusters.members):
        parts = [
            jackknife_binary_auroc(run[:, label], fold.labels == label, place, len(members))
            for run in _require_class_scores(fold)
            for label in range(fold.num_classes)
        ]
        area = float(np.mean([part[0] for part in parts]))
        value += weight * area
        change[members] += weight * (np.mean([part[1] for part in parts], axis=0) - area)
    return value, value + change


def jackknife_binary_auroc(
    scores: Floats, is_positive: NDArray[np.bool_], cluster_index: NDArray[np.int64], num_clusters: int
) -> tuple[float, Floats]:
    """The area under a ROC curve, and the same without each unit; NaN where either side has no image.

    It is the share of pairs (positive, negative) in order (Mann and Whitney), so that without a unit the pairs with its
    images are taken off.

    Args:
        scores: (images,).
        is_positive: which images are (images,).
        cluster_index: the unit of each image (images,).
        num_clusters: how many there are.
    """
    ahead = _concordant_pairs(scores, is_positive)
    total = ahead[is_positive].sum()
    counts = np.array(
        [np.bincount(cluster_index[side], minlength=num_clusters) for side in (is_positive, ~is_positive)], dtype=float
    )
    own = np.bincount(cluster_index, ahead, num_clusters)
    within = np.zeros(num_clusters)
    order = np.argsort(cluster_index, kind="stable")
    for unit, images in zip(
        np.unique(cluster_index), np.split(order, np.flatnonzero(np.diff(cluster_index[order])) + 1)
    ):
        if 0 < is_positive[images].sum() < len(images):
            within[unit] = _concordant_pairs(scores[images], is_positive[images])[is_positive[images]].sum()
    sides = counts.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(total / sides.prod()), (total - own + within) / (sides[:, None] - counts).prod(0)


def _concordant_pairs(scores: Floats, is_positive: NDArray[np.bool_]) -> Floats:
    """Of every image, the images of the other side with which it is in order (images,); ties count half."""
    ranks = rankdata(scores)
    found = np.zeros(len(scores))
    found[is_positive] = ranks[is_positive] - rankdata(scores[is_positive])
    negatives = ~is_positive
    found[negatives] = is_positive.sum() - (ranks[negatives] - rankdata(scores[negatives]))
    return found


# Calibration errors


def _equal_width_bins(scores: Floats) -> NDArray[np.int64]:
    bins: NDArray[np.int64] = np.ceil(scores * CALIBRATION_BINS).astype(int) - 1  # (low, high]
    return np.clip(bins, 0, CALIBRATION_BINS - 1)


def _top_label_gaps(scores: Floats, labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats]:
    """The bin of each image, and by how much it is right more than its score says (images, 1)."""
    best = scores.max(-1)
    return _equal_width_bins(best)[:, None], ((scores.argmax(-1) == labels) - best)[:, None]


def _top_label_gaps_equal_mass(scores: Floats, labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats]:
    best = scores.max(-1)
    ranks = rankdata(best, method="ordinal").astype(np.int64)  # of scipy 1.18 they are floats
    bins = (ranks - 1) * CALIBRATION_BINS // len(best)
    return bins[:, None], ((scores.argmax(-1) == labels) - best)[:, None]


def _classwise_gaps(scores: Floats, labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats]:
    """The same for every class (images, classes), the bins of a class after those of the one before."""
    classes = scores.shape[-1]
    return _equal_width_bins(scores) + CALIBRATION_BINS * np.arange(classes), np.eye(classes)[labels] - scores


def _calibration_error(
    folds: list[Predictions],
    clusters: Clusters,
    cluster_indices: list[NDArray[np.int64]],
    bin_gaps: Callable[[Floats, NDArray[np.int64]], tuple[NDArray[np.int64], Floats]],
    num_classes: int | None,
    with_interval: bool,
) -> Estimate:
    """The mean over folds, runs (and classes) of the bins' gaps, each with its share of the images.

    Args:
        bin_gaps: bin and gap of each image (images, classes or 1).
        num_classes: over how many it is a mean; None: all.
        with_interval: whether it gets an interval.
    """
    gaps, noise, scale = [], [], []
    for fold, place, members in zip(folds, cluster_indices, clusters.members):
        images = len(fold.labels)
        sizes = np.bincount(place, minlength=len(members))
        for run in _require_class_scores(fold):
            which, gap = bin_gaps(run, fold.labels)
            count = int(which.max()) + 1
            flat = (place[:, None] * count + which).ravel()
            of_units = np.bincount(flat, gap.ravel(), len(members) * count).reshape(len(members), count) / images
            total = of_units.sum(0)
            gaps.append(total)
            if with_interval and count <= MAX_CLASSES * CALIBRATION_BINS:
                spread = np.zeros((len(clusters.counts), count))
                beyond_share = of_units - sizes[:, None] / images * total
                spread[members] = beyond_share * (images / np.maximum(images - sizes, 1))[:, None]  # of leaving it out
                noise.append(spread)
            scale.append(
                np.full(count, 1 / (len(_require_class_scores(fold)) * len(folds) * (num_classes or fold.num_classes)))
            )
    gap, weight = np.concatenate(gaps), np.concatenate(scale)
    value = float(weight @ np.abs(gap))
    if not noise:
        return Estimate(value, None)
    return Estimate(value, _invert_test(value, gap, np.concatenate(noise, axis=1), weight, clusters))


def _invert_test(value: float, bin_gaps: Floats, noise: Floats, weight: Floats, clusters: Clusters) -> Interval:
    """The errors of which `value` is neither among the largest nor the smallest.

    Args:
        bin_gaps: of the bins, signed (bins,).
        noise: what each unit has in them beyond its share (units, bins).
        weight: of the bins (bins,).
    """
    if clusters.n_eff < MIN_CLUSTERS:
        return None
    generator, less = np.random.default_rng(0), (len(clusters.counts) - 1) / len(clusters.counts)
    roots = np.linalg.svd(noise * less**0.5, full_matrices=False)
    drawn = generator.standard_normal((NOISE_SAMPLES, len(roots.S))) @ (roots.S[:, None] * roots.Vh)
    freedom = clusters.n_eff - 1
    # What is left of noise once its mean is taken off is less than there was: 1 / effective makes up for it.
    drawn *= (freedom / generator.chisquare(freedom, NOISE_SAMPLES))[:, None] ** 0.5 * (1 + 1 / clusters.n_eff)

    def beyond(times: float, share: float) -> float:
        return float(np.quantile(np.abs(times * bin_gaps + drawn) @ weight, share)) - value

    ends, tail = [], (1 - CONFIDENCE) / 2
    for share in (1 - tail, tail):
        if beyond(0.0, share) >= 0:
            ends.append(0.0)
            continue
        most = 2.0
        while beyond(most, share) < 0:
            most *= 2
        ends.append(float(brentq(beyond, 0.0, most, args=(share,), xtol=1e-4)) * value)
    return ends[0], max(ends[1], value)
