"""Uncertainty of a chosen threshold, and of the rates at it if the choice is included.

A threshold for a sensitivity or specificity is a quantile of the scores of one side. Its interval contains the
thresholds at which the interval of the rate contains the target, on the images that it was chosen on, by patient if
patients are known (Woodruff, 1952, J Am Stat Assoc 47:635). The interval of Youden's threshold is symmetric, from a
smoothed bootstrap of images or patients: the threshold converges with the cube root of the number of images, so that
the ordinary bootstrap is not consistent (Leger and MacGibbon, 2006, Can J Stat 34:29). The variation of a rate between
the ends of the interval of the threshold is added to its own interval as squares of distances to the estimate (MOVER;
Zou and Donner, 2008, Stat Med 27:1693).
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.special import expit, logit

from .estimation import Rate, Sample, class_rate, estimate_rate, fit_proportions, group_ids, too_few_units
from .intervals import CONFIDENCE, MIN_UNITS, Floats, Interval, wilson_interval
from .metrics import is_at_least
from .operating_points import OneVsRest, ThresholdRule, effective_trials, positive_scores
from .prediction_table import Predictions

DRAWS = 400  # of the bootstrap
LEVELS = 2000  # thresholds that are compared in a draw
SMALLEST_SCORE = 1e-8  # score, before its logit is computed


def threshold_intervals(rule: ThresholdRule, selection: OneVsRest) -> list[Interval]:
    """Computes the 95 % interval of the threshold of each fold and run; None: too few images or patients."""
    return [
        _youden_interval(fold, scores) if rule.kind == "youden" else _quantile_interval(rule, fold, scores)
        for fold in selection.folds
        for scores in positive_scores(fold)
    ]


def _quantile_interval(rule: ThresholdRule, fold: Predictions, scores: Floats) -> Interval:
    """Computes the range of the thresholds whose rate has an interval that contains the target."""
    on_side = fold.labels == (1 if rule.kind == "sensitivity" else 0)
    threshold = rule.choose_threshold(scores, fold.labels == 1)
    predicted = is_at_least(scores, threshold)[None].astype(int)
    sample = Sample([replace(fold, predicted=predicted, class_scores=None)])
    rate = estimate_rate(sample, rule.kind, 1)
    if rate is None or rate.interval is None:
        return None
    fit = fit_proportions(sample, class_rate(rule.kind, 1))
    levels = np.union1d(scores, [0.0, 1.0])
    rates = np.searchsorted(np.sort(scores[on_side]), levels) / on_side.sum()
    low, high = wilson_interval(1 - rates if rule.kind == "sensitivity" else rates, effective_trials(fit), fit.quantile)
    plausible = np.flatnonzero((low <= rule.target) & (rule.target <= high))
    if len(plausible) == 0:  # too few units: no fraction of them is near the target
        return None
    below = levels[max(plausible.min() - 1, 0)]  # a rate is that of all thresholds above the next lower score
    return min(float(below), threshold), max(float(levels[plausible.max()]), threshold)


def _youden_interval(fold: Predictions, scores: Floats) -> Interval:
    """Computes the interval from the distances between the thresholds of smoothed resamples and that of the smoothed
    scores, on the scale of their logits."""
    group, is_positive = group_ids([fold]), fold.labels == 1
    if too_few_units(len(scores), group) or min(is_positive.sum(), (~is_positive).sum()) < MIN_UNITS:
        return None
    chosen = ThresholdRule("youden").choose_threshold(scores, is_positive)
    order = np.lexsort([*([] if group is None else [group]), is_positive, scores])  # draws do not depend on the order
    values, is_positive = _logit(scores)[order], is_positive[order]
    units = np.arange(len(scores)) if group is None else group[order]
    spread = np.where(is_positive, _bandwidth(values[is_positive]), _bandwidth(values[~is_positive]))
    if spread.max() == 0:  # the scores do not vary
        return None
    margin = 3 * spread.max()
    levels = np.linspace(values.min() - margin, values.max() + margin, LEVELS)
    smoothed = _find_youden_level(levels, values, is_positive, spread)
    generator, count, distances = np.random.default_rng(0), int(units.max()) + 1, []
    for _ in range(DRAWS):
        drawn = np.repeat(np.arange(len(values)), generator.multinomial(count, np.full(count, 1 / count))[units])
        if 0 < is_positive[drawn].sum() < len(drawn):
            noisy = values[drawn] + spread[drawn] * generator.normal(size=len(drawn))
            distances.append(abs(_find_youden_level(levels, noisy, is_positive[drawn]) - smoothed))
    center, distance = float(_logit(chosen)), float(np.quantile(distances, CONFIDENCE))
    return min(float(expit(center - distance)), chosen), max(float(expit(center + distance)), chosen)


def _logit(scores: Floats | float) -> Floats:
    values: Floats = logit(np.clip(scores, SMALLEST_SCORE, 1 - SMALLEST_SCORE))
    return values


def _bandwidth(values: Floats) -> float:
    """Computes the bandwidth of a normal kernel (Silverman, 1986, Density Estimation, eq. 3.31)."""
    deviation, (low, high) = float(values.std(ddof=1)), np.quantile(values, [0.25, 0.75])
    scale: float = min(deviation, float(high - low) / 1.349) or deviation
    return 0.9 * scale / float(len(values) ** 0.2)


def _find_youden_level(
    levels: Floats, values: Floats, is_positive: NDArray[np.bool_], bandwidths: Floats | None = None
) -> float:
    """Finds the threshold with the greatest Youden index among levels of equal distance.

    Args:
        bandwidths: of the kernel of each value (images,), equal for positive and for negative ones; None: no kernel.
    """
    step, fractions = levels[1] - levels[0], []
    bins = np.clip((values - levels[0]) / step, 0, len(levels) - 1).astype(int)
    for side in (is_positive, ~is_positive):
        counts = np.bincount(bins[side], minlength=len(levels)).astype(float)
        if bandwidths is not None:
            counts = gaussian_filter1d(counts, max(bandwidths[side][0] / step, 0.1))
        fractions.append(counts[::-1].cumsum()[::-1] / counts.sum())
    return float(levels[(fractions[0] - fractions[1]).argmax()])


def intervals_with_choice(
    evaluated: OneVsRest, intervals: list[Interval], rates: dict[str, Rate]
) -> dict[str, Interval]:
    """Computes the intervals of sensitivity and specificity that include the choice of the thresholds.

    Args:
        intervals: of the threshold of each fold and run.
        rates: at the thresholds.
    """
    known = [interval for interval in intervals if interval is not None]
    if len(known) < len(intervals):
        return {}
    ends = []
    for side in (0, 1):
        by_run = iter([interval[side] for interval in known])
        thresholds = [[next(by_run) for _ in fold.predicted] for fold in evaluated.folds]
        ends.append(Sample(evaluated.apply_thresholds(thresholds)))
    found: dict[str, Interval] = {}
    for name in ("sensitivity", "specificity"):
        rate, others = rates.get(name), [estimate_rate(sample, name, 1) for sample in ends]
        if rate is None or rate.interval is None:
            continue
        values = [rate.value, *(other.value for other in others if other is not None)]
        low = rate.value - float(np.hypot(rate.value - rate.interval[0], rate.value - min(values)))
        high = rate.value + float(np.hypot(rate.interval[1] - rate.value, max(values) - rate.value))
        found[name] = max(low, 0.0), min(high, 1.0)
    return found
