"""Positive predictive value (PPV) at a recall and a prevalence, with the threshold chosen on the evaluated images.

- Closed form: PPV = R p / (R p + F (1 - p)), with the recall R and the false-positive rate F at the highest threshold
  that reaches the recall, and the prevalence p. Its interval is the union of those of all thresholds that may be the
  right one: a score test of both rates with the threshold as a nuisance parameter (after Claeskens, Jing, Peng and
  Zhou, 2003, Can J Stat 31:173, who use the empirical likelihood), with the effective numbers of images.
- Estimate of the RARE25 challenge (github.com/TUE-ARIA/RARE25-Baselines): median, 2.5 % and 97.5 % of resamples that
  keep all negative images and draw positive ones, with replacement, for the prevalence; the precision is interpolated
  linearly at the recall.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..settings.metrics import PPV_AT_RECALL
from ..settings.one_vs_rest import OneVsRestArguments
from .estimation import Sample, class_rate, fit_proportions, too_few_units
from .intervals import Estimate, Floats, IntervalReason, wilson_interval
from .metrics import safe_divide
from .operating_points import OneVsRest, ThresholdRule, effective_trials, find_positive_ids, positive_scores
from .prediction_table import Predictions

RESAMPLES = 1000
NUMBERS_AT_ONCE = 5_000_000  # scores in memory at once
QUANTILES = (50, 2.5, 97.5)
MIN_IMAGES_PER_SIDE = 2  # smallest number of positive and of negative images for an interval


@dataclass(frozen=True)
class ChallengeEstimate:
    """Quantiles of the precision at the recall, over the resamples of the RARE challenge."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class PpvAtRecall:
    """PPV at a recall and a prevalence, as a mean over folds and runs.

    Args:
        recall: the recall that the thresholds reach.
        reached: recall at the thresholds, at least `recall`.
        thresholds: one per fold and run, on the summed score of the positive classes.
        estimate: the closed form, with a 95 % interval.
        challenge: the estimate of the RARE challenge.
    """

    recall: float
    prevalence: float
    reached: float
    thresholds: list[float]
    estimate: Estimate
    challenge: ChallengeEstimate


def estimate_ppv_at_recall(images: OneVsRest, recall: float, prevalence: float | None = None) -> PpvAtRecall | None:
    """Estimates the PPV at a recall; None if a fold has no positive or no negative image.

    Args:
        recall: above 0, at most 1.
        prevalence: None: that of the images.
    """
    if any(fold.labels.min() == fold.labels.max() for fold in images.folds):
        return None
    prevalence = images.prevalence if prevalence is None else prevalence
    thresholds = images.choose_thresholds(ThresholdRule("sensitivity", recall))
    reached, _, false = _mean_roc_points(images.folds, np.array([recall]))
    by_fold = [
        np.mean([ppv_at_recall(scores, fold.labels == 1, recall, prevalence) for scores in positive_scores(fold)])
        for fold in images.folds
    ]
    return PpvAtRecall(
        recall,
        prevalence,
        float(reached[0]),
        [threshold for by_run in thresholds for threshold in by_run],
        _estimate_interval(images, thresholds, float(np.mean(by_fold)), recall, prevalence),
        estimate_as_challenge(images.folds, recall, prevalence),
    )


def estimate_split_ppv(
    labels: NDArray[np.int64],
    class_scores: Floats,
    names: list[str],
    groups: NDArray[Any] | None,
    options: OneVsRestArguments | None,
) -> dict[str, Any]:
    """Estimates the PPV at a recall of a split, of the positive classes or of each class against the rest.

    Args:
        labels: class ids (images,).
        class_scores: (images, classes).
        groups: patient or video of each image (images,), or None.

    Returns:
        `ppv`: the values of `PpvAtRecall` and `classes`, without those that have no or all images; `ppv_at_recall`: the
        closed form of the positive classes. Empty without the option.
    """
    if options is None or options.ppv_at_recall is None:
        return {}
    folds = [Predictions(labels, class_scores.argmax(-1)[None], len(names), groups, class_scores[None])]
    groupings = [options.positive] if options.positive else [[name] for name in names]
    found = []
    for classes in groupings:
        images = OneVsRest.from_predictions(folds, find_positive_ids(classes, names))
        result = estimate_ppv_at_recall(images, options.ppv_at_recall, options.prevalence)
        if result is not None:
            found.append({"classes": classes, **asdict(result)})
    scores: dict[str, Any] = {"ppv": found}
    return scores | ({PPV_AT_RECALL: found[0]["estimate"]["value"]} if options.positive and found else {})


def ppv_at_recall(scores: Floats, is_positive: NDArray[np.bool_], recall: float, prevalence: float | None) -> float:
    """Computes the closed form of one run.

    Args:
        scores: of the positive classes (images,).
        is_positive: mask of the positive images (images,); neither empty nor full.
        prevalence: None: that of the images.
    """
    reached, _, false = _roc_points(scores, is_positive, np.array([recall]))
    prevalence = float(is_positive.mean()) if prevalence is None else prevalence
    return float(_positive_predictive_value(reached, false, prevalence)[0])


def _positive_predictive_value(recall: Floats, false: Floats, prevalence: float) -> Floats:
    true = recall * prevalence
    return safe_divide(true, true + false * (1 - prevalence))


def _roc_points(scores: Floats, is_positive: NDArray[np.bool_], recalls: Floats) -> tuple[Floats, Floats, Floats]:
    """Computes the points of the ROC curve at the highest thresholds that reach recalls (points,).

    A recall of 0 stands for a threshold above all scores, and one above 1 for a threshold below all scores.

    Returns:
        The recall that is reached, the recall at the next higher threshold, and the false-positive rate.
    """
    positive, negative = np.sort(scores[is_positive]), np.sort(scores[~is_positive])
    count = len(positive)
    needed = np.clip(np.ceil(recalls * count - 1e-9), 0, count + 1).astype(int)
    thresholds = np.concatenate([[np.inf], positive[::-1], [-np.inf]])[needed]
    reached = 1 - np.searchsorted(positive, thresholds, side="left") / count
    beyond = 1 - np.searchsorted(positive, thresholds, side="right") / count
    return reached, beyond, 1 - np.searchsorted(negative, thresholds, side="left") / len(negative)


def _mean_roc_points(folds: list[Predictions], recalls: Floats) -> Floats:
    """Computes the mean over folds and runs of `_roc_points`: (3, points)."""
    by_fold = [
        np.mean([_roc_points(scores, fold.labels == 1, recalls) for scores in positive_scores(fold)], axis=0)
        for fold in folds
    ]
    means: Floats = np.mean(by_fold, axis=0)
    return means


def _estimate_interval(
    images: OneVsRest, thresholds: list[list[float]], value: float, recall: float, prevalence: float
) -> Estimate:
    """Adds the interval to the closed form."""
    sample = Sample(images.apply_thresholds(thresholds))
    positives = [int((fold.labels == 1).sum()) for fold in images.folds]
    negatives = sum(len(fold.labels) for fold in images.folds) - sum(positives)
    reason = too_few_units(sample.num_images, sample.group)
    if reason is None and min(sum(positives), negatives) < MIN_IMAGES_PER_SIDE:
        reason = IntervalReason.TOO_FEW_IMAGES
    if reason is not None:
        return Estimate(value, None, reason)
    sensitivity, specificity = (fit_proportions(sample, class_rate(name, 1)) for name in ("sensitivity", "specificity"))
    quantile = max(sensitivity.quantile, specificity.quantile)
    steps = np.unique(np.concatenate([np.arange(count + 2) / count for count in positives]))
    reached, beyond, false = _mean_roc_points(images.folds, steps)
    distance = np.maximum(np.maximum(recall - reached, beyond - recall), 0)
    error = (recall * (1 - recall) / effective_trials(sensitivity)) ** 0.5
    deviation = np.where(distance > 1e-12, distance / max(error, 1e-12), 0.0)
    may_be_right = deviation <= quantile
    left = np.sqrt(np.maximum(quantile**2 - deviation[may_be_right] ** 2, 0))
    false_low, false_high = wilson_interval(false[may_be_right], effective_trials(specificity), left)
    low = _positive_predictive_value(np.array(recall), false_high, prevalence).min()
    high = _positive_predictive_value(np.maximum(recall, reached[may_be_right]), false_low, prevalence).max()
    return Estimate(value, (min(float(low), value), max(float(high), value)))


def estimate_as_challenge(folds: list[Predictions], recall: float, prevalence: float) -> ChallengeEstimate:
    """Computes the estimate of the RARE challenge; the seed is fixed, several folds or runs are averaged per resample.

    The precision of a resample equals `numpy.interp(recall, recalls[::-1], precisions[::-1])` of scikit-learn's
    `precision_recall_curve`.
    """
    generator, values = np.random.default_rng(0), np.zeros(RESAMPLES)
    for fold in folds:
        is_positive = fold.labels == 1
        positives, negatives = int(is_positive.sum()), int((~is_positive).sum())
        drawn = max(1, int(negatives * prevalence / (1 - prevalence) + 1e-9))
        runs, batch = positive_scores(fold), max(1, NUMBERS_AT_ONCE // drawn)
        sorted_negatives = [np.sort(scores[~is_positive]) for scores in runs]
        for start in range(0, RESAMPLES, batch):
            draws = generator.integers(positives, size=(min(batch, RESAMPLES - start), drawn))
            for scores, negative in zip(runs, sorted_negatives):
                precision = _interpolated_precision(scores[is_positive][draws], negative, recall)
                values[start : start + batch] += precision / len(runs) / len(folds)
    return ChallengeEstimate(*np.percentile(values, QUANTILES).tolist())


def _interpolated_precision(positive: Floats, negative: Floats, recall: float) -> Floats:
    """Interpolates the precision at a recall (resamples,), from the scores of positive images (resamples, drawn) and
    the sorted scores of the negative ones."""
    drawn = positive.shape[-1]
    complete = int((np.arange(1, drawn + 1) / drawn <= recall).sum())  # images that do not exceed the recall
    if complete == drawn:
        return np.full(len(positive), drawn / (drawn + len(negative)))
    following = np.sort(positive)[:, ::-1][:, complete]
    above, up_to = (positive > following[:, None]).sum(-1), (positive >= following[:, None]).sum(-1)
    false_above = len(negative) - np.searchsorted(negative, following, side="right")
    false_up_to = len(negative) - np.searchsorted(negative, following, side="left")
    called = above + false_above
    before = np.where(called > 0, above / np.maximum(called, 1), 1.0)
    after = up_to / (up_to + false_up_to)
    first, second = above / drawn, up_to / drawn
    precision: Floats = before + (after - before) * (recall - first) / (second - first)
    return precision
