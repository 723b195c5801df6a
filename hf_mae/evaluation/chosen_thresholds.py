"""Uncertainty of a chosen threshold, and of the rates at it if the choice is included.

A threshold for a sensitivity or specificity is a quantile of the scores of one side. Its interval contains the
thresholds at which the interval of the rate contains the target, on the images that it was chosen on, by patient if
patients are known (Woodruff, 1952, J Am Stat Assoc 47:635). The interval of Youden's threshold is a percentile
bootstrap of images or patients. The variation of a rate between the ends of the interval of the threshold is added to
its own interval as squares of distances to the estimate (MOVER; Zou and Donner, 2008, Stat Med 27:1693).
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .estimation import Rate, Sample, class_rate, estimate_rate, fit_proportions, group_ids, too_few_units
from .intervals import CONFIDENCE, Floats, Interval, wilson_interval
from .metrics import is_at_least
from .operating_points import OneVsRest, ThresholdRule, effective_trials, positive_scores
from .prediction_table import Predictions

DRAWS = 400  # of the bootstrap


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
    group = group_ids([fold])
    if too_few_units(len(scores), group) is not None:
        return None
    order = np.lexsort([fold.labels, scores])  # the draws do not depend on the order of the images
    is_positive, units = (fold.labels == 1)[order], np.arange(len(scores)) if group is None else group[order]
    levels, level = np.unique(scores[order], return_inverse=True)
    generator, count = np.random.default_rng(0), int(units.max()) + 1
    found = []
    for _ in range(DRAWS):
        times = generator.multinomial(count, np.full(count, 1 / count))[units]
        right, wrong = (_fractions_from_above(level, times * side, len(levels)) for side in (is_positive, ~is_positive))
        if right is not None and wrong is not None:
            found.append(levels[int(np.argmax(right - wrong))])
    chosen = ThresholdRule("youden").choose_threshold(scores, fold.labels == 1)
    ends = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="inverted_cdf")
    return min(float(ends[0]), chosen), max(float(ends[1]), chosen)


def _fractions_from_above(level: NDArray[np.int64], weights: NDArray[np.int64], count: int) -> Floats | None:
    """Computes the fraction of the weights at or above each level; None without weights."""
    total = np.bincount(level, weights, count)[::-1].cumsum()[::-1]
    return total / total[0] if total[0] > 0 else None


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
