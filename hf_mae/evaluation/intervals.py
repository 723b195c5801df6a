"""Arithmetic of 95 % confidence intervals: score intervals, with a design factor for patients, runs and folds.

- `score_interval`: a weighted sum of proportions, or of F1 values. The limits are the values that a score test does not
  reject, with the variance at the constrained maximum-likelihood estimates of the proportions (Martin Andres, Alvarez
  Hernandez and Herranz Tejedor, 2011, Stat Methods Med Res 20:369). For one proportion, this is Wilson's interval, with
  the limits of Brown, Cai and DasGupta (2001, Stat Sci 16:101) for one to three errors.
- `effective_wilson_interval`: a bounded score with a known variance: Wilson's interval for the number of
  images that gives this variance to a proportion (Korn and Graubard, 1998, Survey Methodology 24:193; Franco, Little,
  Louis and Slud, 2019, J Surv Stat Methodol 7:334).
- `ratio_score_interval`: a ratio of two proportions (Koopman, 1984, Biometrics 40:513), for predictive values at a
  prevalence.
- `log_scale_interval`: a positive, unbounded mean.

`design_effect` estimates how much the correlation of the images of a patient increases a variance, and the degrees of
freedom of Student's t. Coverage and widths: scripts/studies/simulate_statistics.py and docs/coverage.md.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaincinv, ndtr, ndtri, stdtrit
from scipy.stats import gamma

CONFIDENCE = 0.95
QUANTILE = float(ndtri((1 + CONFIDENCE) / 2))
MIN_UNITS = 3  # smallest number of images or patients for an interval
MIN_EFFECTIVE_GROUPS = 1.5  # smallest effective number of patients (Kish) for an interval
PSEUDO_GROUPS = 1 / 40  # share of the smoothing that counts as complete patients in a design effect
PSEUDO_IMAGES = 2.0  # right and wrong images each that smooth the variance of a score (Price and Bonett, 2004)
PSEUDO_IMAGES_OF_DIFFERENCE = 1.0  # the same for a difference: 1/2 image per cell of two classes (Agresti and Min)
LOWEST_ABOVE_CHANCE = 0.2  # of the range above chance: smallest score for the effective number of images

Floats = NDArray[np.float64]
Interval = tuple[float, float] | None


class IntervalReason(str, Enum):
    """Why a score has no interval."""

    TOO_FEW_IMAGES = "too_few_images"
    TOO_FEW_GROUPS = "too_few_groups"
    NOT_ESTIMABLE = "not_estimable"  # a calibration error is biased; the one-off accuracy of two grades is constant


@dataclass(frozen=True)
class Estimate:
    """Value with its 95 % interval.

    Args:
        reason: why the interval is None.
        classes_without_images: ids of the classes that a mean over classes does not estimate, because they have no
            image in the denominator.
    """

    value: float
    interval: Interval
    reason: IntervalReason | None = None
    classes_without_images: tuple[int, ...] = ()


def t_quantile(degrees_of_freedom: float) -> float:
    """Returns the two-sided 95 % quantile of Student's t, for at least one degree of freedom."""
    return float(stdtrit(min(max(degrees_of_freedom, 1.0), 1e9), (1 + CONFIDENCE) / 2))


# Intervals


def wilson_interval(proportion: ArrayLike, trials: ArrayLike, quantile: ArrayLike = QUANTILE) -> tuple[Any, Any]:
    """Computes Wilson's score interval (low, high) of proportions (...).

    Equals `scipy.stats.binomtest(...).proportion_ci(method="wilson")`, and takes fractional counts, too.
    """
    p, n, q2 = np.asarray(proportion), np.asarray(trials), np.asarray(quantile) ** 2
    centre = (p + q2 / (2 * n)) / (1 + q2 / n)
    margin = np.sqrt(q2 * (p * (1 - p) / n + q2 / (4 * n**2))) / (1 + q2 / n)
    return np.minimum(np.maximum(centre - margin, 0), p), np.maximum(np.minimum(centre + margin, 1), p)


def score_interval(
    proportions: ArrayLike,
    trials: ArrayLike,
    weights: ArrayLike,
    design: ArrayLike = 1.0,
    quantile: ArrayLike = QUANTILE,
    f1: bool = False,
) -> tuple[Any, Any]:
    """Computes the score interval (low, high) of sums of proportions, for any number of sums (...) at once.

    The limits are sums with |estimate - expectation| = quantile * standard error, where the proportions have the
    greatest likelihood for their sum (multiplier method). Two corrections are ours. With k proportions, k - 1 free
    parameters are fitted, so their variances are multiplied by 1 + (k - 1) / k / (n - 1); for two equal samples this is
    the factor N / (N - 1) of Miettinen and Nurminen (1985, Stat Med 4:213). For F1, the expectation includes the
    second-order term of the Taylor series, F1''(J) Var(J) / 2.

    Args:
        proportions: observed proportions (..., terms); with `f1`, Jaccard indices: F1 is 2 J / (1 + J).
        trials: images of each proportion (..., terms); a term without images is left out.
        weights: weights of the terms (..., terms), not negative.
        design: factor of the variance (...): design effect, correlation of the terms, several runs.
        quantile: quantile of the normal or of Student's t distribution (...).
        f1: whether the terms are F1 values.
    """
    p, n, w = (np.atleast_1d(np.asarray(values, dtype=float)) for values in (proportions, trials, weights))
    p, n, w = np.broadcast_arrays(p, n, np.where(n > 0, w, 0.0))
    shape = p.shape[:-1]
    r: Floats = np.broadcast_to(np.asarray(design, dtype=float), shape)
    q: Floats = np.broadcast_to(np.asarray(quantile, dtype=float), shape)
    num_terms = np.maximum((w > 0).sum(-1, keepdims=True), 1)
    n = np.where(n > 0, n, 1.0)
    fitted = 1 + (num_terms - 1) / num_terms / np.maximum(n - 1, 1)
    largest = np.maximum(w.max(-1, keepdims=True), 1e-300)
    estimate = (w * _f1_value(p, f1)).sum(-1)
    limits = []
    for sign in (-1.0, 1.0):
        low, high = np.full(shape, -14.0), np.full(shape, 24.0 + np.log(n.max()))
        for _ in range(36):
            middle = (low + high) / 2
            multiplier = sign * np.exp(middle)[..., None] * w / largest
            constrained = _constrained_f1(multiplier, p, n) if f1 else _constrained_proportion(multiplier, p, n)
            variance = constrained * (1 - constrained) / n * fitted
            slope, bias = np.ones(p.shape), np.zeros(shape)
            if f1:
                slope = 2 / (1 + constrained) ** 2
                bias = r * (w * -2 / (1 + constrained) ** 3 * variance).sum(-1)
            total = (w * _f1_value(constrained, f1)).sum(-1)
            error = np.sqrt(r * (w**2 * slope**2 * variance).sum(-1))
            beyond = sign * (total + bias - estimate) - q * error > 1e-13
            high, low = np.where(beyond, middle, high), np.where(beyond, low, middle)
        limits.append(total)
    single = num_terms[..., 0] == 1
    if single.any():
        term = w.argmax(-1)[..., None]
        scale, trials = largest[..., 0], np.take_along_axis(n, term, -1)[..., 0] / r
        proportion = np.take_along_axis(p, term, -1)[..., 0]
        ends = (_near_bound(proportion, trials), 1 - _near_bound(1 - proportion, trials))
        near_low, near_high = (scale * _f1_value(end, f1) for end in ends)
        limits[0] = np.where(single, np.minimum(limits[0], near_low), limits[0])
        limits[1] = np.where(single, np.maximum(limits[1], near_high), limits[1])
    return np.minimum(limits[0], estimate), np.maximum(limits[1], estimate)


def _near_bound(proportion: Floats, trials: Floats) -> Floats:
    """Computes the lower limit of a proportion of one to three images (two of at most 50): that of a Poisson mean,
    where Wilson's interval does not reach its coverage (Brown, Cai and DasGupta, 2001, Stat Sci 16:101); else 1."""
    count = proportion * trials
    near = (count > 1e-9) & (count <= np.where(trials <= 50, 2.0, 3.0) + 1e-9)
    limit: Floats = np.where(near, gammaincinv(np.where(near, count, 1.0), 1 - CONFIDENCE) / trials, 1.0)
    return limit


def _f1_value(proportions: Floats, f1: bool) -> Floats:
    return 2 * proportions / (1 + proportions) if f1 else proportions


def _constrained_proportion(multiplier: Floats, p: Floats, n: Floats) -> Floats:
    """Solves n (P - p) = multiplier P (1 - P) for P."""
    multiplier = np.where(multiplier == 0, 1e-300, multiplier)
    b = multiplier - n
    root = np.sqrt(b * b + 4 * multiplier * n * p)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        solution = np.where(b > 0, (b + root) / (2 * multiplier), 2 * n * p / (root - b))
    return np.clip(solution, 0, 1)


def _constrained_f1(multiplier: Floats, p: Floats, n: Floats) -> Floats:
    """Solves n (J - p) (1 + J)^2 = 2 multiplier J (1 - J) for J, by Newton's method within a bracket."""
    up = multiplier > 0
    low, high = np.where(up, p, 0.0), np.where(up, 1.0, p)
    j = (low + high) / 2
    for _ in range(40):
        value = n * (j - p) * (1 + j) ** 2 - 2 * multiplier * j * (1 - j)
        low, high = np.where(value < 0, j, low), np.where(value < 0, high, j)
        slope = n * (1 + j) * (1 + 3 * j - 2 * p) - 2 * multiplier * (1 - 2 * j)
        with np.errstate(divide="ignore", invalid="ignore"):
            newton = j - value / slope
        previous, j = j, np.where((newton > low) & (newton < high), newton, (low + high) / 2)
        if np.abs(j - previous).max() < 1e-12:
            break
    return j


def effective_wilson_interval(
    value: float,
    variance: float,
    smoothed_value: float,
    degrees_of_freedom: float = np.inf,
    low: float = 0.0,
    high: float = 1.0,
    chance: float | None = None,
    center: float | None = None,
) -> tuple[float, float]:
    """Computes Wilson's interval of a bounded score for its effective number of images, with Student's t.

    The effective number of images n is that with p (1 - p) / n = variance, for the smoothed value p on the scale from
    `low` to `high`; n - 1 limits the degrees of freedom.

    Args:
        value: estimate of the score.
        variance: its variance, from the smoothed table or scores, so that it is positive.
        smoothed_value: value at which the variance was computed, between `low` and `high`.
        degrees_of_freedom: of the variance.
        low, high: range of the score.
        chance: score of a random prediction, for coefficients of agreement: if the estimate is above it, limits
            above it are on the scale from `chance` to `high`; the upper limit of an interval below it is on the scale
            from `low` to `chance`.
        center: estimate without its bias; None: `value`. The interval contains both.
    """
    center = value if center is None else center
    ends = _effective_wilson(center, variance, smoothed_value, degrees_of_freedom, low, high)
    if chance is not None and ends[1] < chance:
        ends = ends[0], _effective_wilson(center, variance, smoothed_value, degrees_of_freedom, low, chance)[1]
    elif chance is not None and center > chance:
        smoothed_value = max(smoothed_value, chance + LOWEST_ABOVE_CHANCE * (high - chance))
        above = _effective_wilson(center, variance, smoothed_value, degrees_of_freedom, chance, high)
        ends = above[0] if ends[0] > chance else ends[0], max(ends[1], above[1])
    return min(ends[0], value), max(ends[1], value)


def _effective_wilson(
    center: float, variance: float, smoothed_value: float, degrees_of_freedom: float, low: float, high: float
) -> tuple[float, float]:
    width = high - low
    p = min(max((smoothed_value - low) / width, 0.02), 0.9999)
    trials = p * (1 - p) * width**2 / variance
    quantile = t_quantile(min(degrees_of_freedom, trials - 1))
    ends = wilson_interval(min(max((center - low) / width, 0.0), 1.0), trials, quantile)
    return low + width * float(ends[0]), low + width * float(ends[1])


def log_scale_interval(
    value: float, variance: float, smoothed_value: float, degrees_of_freedom: float
) -> tuple[float, float]:
    """Computes the interval of a positive mean that has no upper bound: Student's t on the logarithm."""
    factor = float(np.exp(t_quantile(degrees_of_freedom) * variance**0.5 / smoothed_value))
    return value / factor, value * factor


def weighted_count_interval(
    value: float, variance: float, weight: float, quantile: float = QUANTILE
) -> tuple[float, float]:
    """Computes the gamma interval of a weighted sum of counts of rare events, such as costs of errors (Fay and Feuer,
    1997, Stat Med 16:791).

    Args:
        value: the sum, not negative.
        variance: its variance, positive.
        weight: of the event that is added for the upper limit: the largest one, or a mean (Tiwari, Clegg and Zou, 2006,
            Stat Methods Med Res 15:547).
        quantile: of the normal or of Student's t distribution.
    """
    tail = float(ndtr(-quantile))
    low = float(gamma.ppf(tail, value**2 / variance, scale=variance / value)) if value > 0 else 0.0
    mean, above = value + weight, variance + weight**2
    return min(low, value), max(float(gamma.isf(tail, mean**2 / above, scale=above / mean)), value)


def ratio_score_interval(
    first: float, first_trials: float, second: float, second_trials: float, quantile: float = QUANTILE
) -> tuple[float, float]:
    """Computes Koopman's score interval (low, high) of the ratio first / second of two independent proportions.

    Args:
        first, second: proportions.
        first_trials, second_trials: their (effective) numbers of images.

    Returns:
        0 and infinity at the ends of the range.
    """

    def statistic(log_ratio: float) -> float:
        ratio = float(np.exp(log_ratio))
        a = (first_trials + second_trials) * ratio
        b = -(first_trials * (ratio + first) + second_trials * (1 + second * ratio))
        c = first_trials * first + second_trials * second
        constrained = (-b - max(b * b - 4 * a * c, 0.0) ** 0.5) / (2 * a)
        top = min(ratio * constrained, 1.0)
        variance = top * (1 - top) / first_trials + ratio**2 * constrained * (1 - constrained) / second_trials
        return float((first - ratio * second) / max(variance, 1e-300) ** 0.5)

    low, high = 0.0, float("inf")
    if first > 0:
        low = float(np.exp(_bisect(statistic, quantile)))
    if second > 0:
        high = float(np.exp(_bisect(statistic, -quantile)))
    return low, high


def _bisect(decreasing: Any, target: float, low: float = -25.0, high: float = 25.0) -> float:
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if decreasing(middle) > target else (low, middle)
    return (low + high) / 2


# Patients and videos


@dataclass(frozen=True)
class DesignEffect:
    """How the correlation of the images of a patient or video affects the variance of a score.

    Args:
        factor: of the variance of independent images, at least 1.
        degrees_of_freedom: of Student's t; infinite for independent images.
    """

    factor: float
    degrees_of_freedom: float


INDEPENDENT = DesignEffect(1.0, np.inf)


def design_effect(
    influence: Floats, information: Floats, group: NDArray[np.int64], pseudo_variance: float
) -> DesignEffect:
    """Estimates the design effect of a score from the influence of each image on it.

    It is the larger one of two estimates. The first has no model: the sum of the squared sums of a patient's
    influences, each divided by one minus the patient's share of the information (Bell and McCaffrey, 2002, Survey
    Methodology 28:169). The second one assumes one correlation between all images of a patient (`_correlation`); it is
    more stable if patients are of unequal size. If there are few errors, pseudo-images of complete patients dominate
    both. The degrees of freedom are the effective number of patients (Kish) by their information, minus one.

    Args:
        influence: of each image on the score (images,).
        information: expected squared influence of each image (images,).
        group: patient or video of each image (images,), from 0.
        pseudo_variance: variance that the smoothing adds.
    """
    sizes = np.bincount(group).astype(float)
    influence = influence - influence.mean()
    information = information if information.sum() > 0 else np.ones(len(group))
    share = np.bincount(group, information) / information.sum()
    total, squares, smooth = (
        np.bincount(group, influence),
        float(influence @ influence),
        PSEUDO_GROUPS * pseudo_variance,
    )
    complete = float((share * sizes).sum())  # design effect if the images of a patient are equal
    between = float((total**2 / np.maximum(1 - share, 0.1)).sum()) + smooth * complete
    factor: float = max(between / (squares + smooth + 1e-300), 1.0)
    pairs = np.bincount(group, information**0.5) ** 2 / information.sum() - share
    if squares > 0 and pairs.max() > 1e-9:
        correlation = _correlation(total**2 / squares, np.bincount(group, influence**2) / squares, share, pairs)
        correlation = (correlation * squares + smooth) / (squares + smooth)
        factor = max(factor, 1 + correlation * float(pairs.sum()))
    return DesignEffect(factor, float(1 / (share**2).sum()) - 1)


def _correlation(totals: Floats, squares: Floats, own: Floats, pairs: Floats) -> float:
    """Estimates the correlation of the images of a patient, from 0 to 1, from moments with the weights of Paule and
    Mandel (1982, J Res NBS 87:377), so that large patients do not decide alone.

    Args:
        totals: squared sums of the influences of each patient (patients,).
        squares: sums of their squares (patients,).
        own, pairs: expected squared sums (patients,): own + correlation * pairs.
    """
    bias_own = own**2 * own.sum() - 2 * own * own  # of the squared sums, as the influences have a mean of 0
    bias_pairs = own**2 * pairs.sum() - 2 * own * pairs
    correlation = 0.5
    for _ in range(20):
        weights = pairs / np.maximum(own + correlation * pairs, 1e-30) ** 2
        expected = float(weights @ (pairs + bias_pairs))
        previous, correlation = correlation, float(weights @ (totals - squares - bias_own)) / max(expected, 1e-300)
        correlation = min(max(correlation, 0.0), 1.0)
        if abs(correlation - previous) < 1e-4:
            break
    return correlation
