"""How sure a score is: 95 % intervals by the jackknife.

Each unit (an image, or a patient or video with all its images) is left out in turn, which says how much the score
depends on it (Efron and Stein, 1981); the interval is Student's, on the logit of the score, with as many degrees of
freedom as the units are worth. A score that is a mean over classes is biased where classes are small, and of images the
jackknife's estimate of that is taken off.

Percentiles of bootstrap resamples, which stood here before, covered 90.0 % for macro precision on a long tail and 86 to
89 % with 40 patients of unequal sizes, at nominal 95; these cover 94 to 95 % there (scripts/simulate_statistics.py).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm
from scipy.stats import t as student

from .confusion import NON_PERCENT, Floats, headline_metric_names, headline_metrics, safe_divide
from .prediction_table import Clusters, Predictions, clusters_from_predictions, effective_sample_size

CONFIDENCE = 0.95
MIN_CLUSTERS = 3.0  # units that an interval can be made of
LOWER_BOUND = {"mcc": -1.0, "qwk": -1.0}  # where it is not 0
Interval = tuple[float, float] | None


def headline_metric_intervals(folds: list[Predictions]) -> dict[str, Interval]:
    """95 % intervals of the headline scores, of their mean over folds and runs; None: there are too few units."""
    return {name: found.interval for name, found in estimate_headline_metrics(folds).items()}


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; None: there are too few units for one."""

    value: float
    interval: Interval


def estimate_headline_metrics(folds: list[Predictions]) -> dict[str, Estimate]:
    """The headline scores, means over folds and runs, with their intervals."""
    units = clusters_from_predictions(folds)
    ordered, grades = folds[0].ordered, folds[0].num_classes - 1
    value, without = jackknife_replicates(units, partial(headline_metrics, ordered=ordered))
    found = {}
    for name in headline_metric_names(ordered):
        highest = float(grades) if name in NON_PERCENT else 1.0
        reach = jackknife_interval(value[name], without[name], units, LOWER_BOUND.get(name, 0.0), highest)
        found[name] = Estimate(value[name], reach)
    return found


@dataclass(frozen=True)
class Rate:
    """A share of the images of a class, or of the others.

    Args:
        n_eff: the number of images, or of equally large groups, that it is told by.
        interval: 95 %; None: these are too few.
    """

    value: float
    n_eff: float
    interval: Interval


RATES = ("sensitivity", "specificity", "ppv", "npv")


def estimate_rates_by_class(folds: list[Predictions]) -> list[dict[str, Rate]]:
    """Sensitivity (recall), specificity, positive (precision) and negative predictive value of each class against the
    rest, as means over folds and runs; the predictive values are at the prevalence of these images. Intervals are
    Wilson's of independent images, and the jackknife's of patients and videos.

    Returns:
        By class, `RATES`; a rate of no image at all is left out.
    """
    units, classes = clusters_from_predictions(folds), folds[0].num_classes
    value, without = jackknife_replicates(units, lambda matrices: _flatten_rates(_rate_counts(matrices)))
    sizes = {name: np.zeros((len(units.counts), classes)) for name in RATES}
    for matrices, members in zip(units.matrices, units.members):
        for name, (_, below) in _rate_counts(matrices).items():
            sizes[name][members] += below.mean(0)
    found: list[dict[str, Rate]] = [{} for _ in range(classes)]
    for label, name in product(range(classes), RATES):
        key, worth = f"{name} {label}", effective_sample_size(sizes[name][:, label], units.counts)
        if worth == 0:
            continue
        if units.kind == "images":
            reach = wilson_interval(value[key], worth)
        else:
            reach = jackknife_interval(value[key], without[key], replace(units, n_eff=worth))
        found[label][name] = Rate(value[key], worth, reach)
    return found


def wilson_interval(proportion: float, count: float, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a share of independent images; None: these are too few.

    As `scipy.stats.binomtest(...).proportion_ci(method="wilson")`, for means of shares too.
    """
    if count < MIN_CLUSTERS:
        return None
    z = float(norm.ppf((1 + confidence) / 2))
    centre = (proportion + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z * (proportion * (1 - proportion) / count + z**2 / (4 * count**2)) ** 0.5 / (1 + z**2 / count)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def _rate_counts(matrices: Floats) -> dict[str, tuple[Floats, Floats]]:
    """What is right, and of how many (..., classes), by rate."""
    right = np.diagonal(matrices, axis1=-2, axis2=-1)
    true, predicted, total = matrices.sum(-1), matrices.sum(-2), matrices.sum((-2, -1))[..., None]
    other = total - true - predicted + right  # neither of the class nor taken for it
    return {
        "sensitivity": (right, true),
        "specificity": (other, total - true),
        "ppv": (right, predicted),
        "npv": (other, total - predicted),
    }


def _flatten_rates(rate_counts: dict[str, tuple[Floats, Floats]]) -> dict[str, Floats]:
    values = {name: safe_divide(above, below) for name, (above, below) in rate_counts.items()}
    return {f"{name} {label}": of[..., label] for name, of in values.items() for label in range(of.shape[-1])}


def jackknife_replicates(
    clusters: Clusters, score_function: Callable[[Floats], dict[str, Floats]]
) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
    """The mean of scores over folds and runs, and the same without each unit (units,).

    Args:
        score_function: of confusion matrices (..., classes, classes), by name.
    """
    value: dict[str, float] = {}
    change: dict[str, NDArray[np.float64]] = {}
    weight = 1.0 / len(clusters.matrices)
    for matrices, members in zip(clusters.matrices, clusters.members):
        total = np.einsum("rukl,u->rkl", matrices, clusters.counts[members].astype(float))
        with np.errstate(invalid="ignore"):  # without a unit that is everything there is nothing
            whole, without = score_function(total), score_function(total[:, None] - matrices)
        for name in whole:
            value[name] = value.get(name, 0.0) + weight * float(whole[name].mean())
            found = change.setdefault(name, np.zeros(len(clusters.counts)))
            found[members] += weight * (without[name] - whole[name][:, None]).mean(0)
    return value, {name: value[name] + found for name, found in change.items()}


def jackknife_interval(
    value: float,
    replicates: NDArray[np.float64],
    clusters: Clusters,
    lower_bound: float = 0.0,
    upper_bound: float = 1.0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """The interval of a score that lies between `lower_bound` and `upper_bound` (infinite: on the logarithm).

    At a bound the jackknife sees nothing: there it reaches as far as the exact binomial one of as many units.

    Args:
        replicates: the score without each unit (units,).

    Returns:
        None: the units are too few.
    """
    if clusters.n_eff < MIN_CLUSTERS or not np.isfinite(replicates).all():
        return None
    if np.isinf(upper_bound):
        return _log_scale_interval(value, replicates, clusters, lower_bound, confidence)
    width = upper_bound - lower_bound
    share = (value - lower_bound) / width
    if share <= 0 or share >= 1 or np.ptp(replicates) == 0:
        reach = width * (1 - ((1 - confidence) / 2) ** (1 / clusters.n_eff))
        return max(lower_bound, value - reach), min(upper_bound, value + reach)
    error, bias = _jackknife_error_and_bias(share, (replicates - lower_bound) / width, clusters)
    if clusters.kind == "images" and 0 < share - bias < 1:
        share -= bias
    centre, reach = float(logit(share)), _t_quantile(clusters, confidence) * error / (share * (1 - share))
    return lower_bound + width * float(expit(centre - reach)), lower_bound + width * float(expit(centre + reach))


def _log_scale_interval(
    value: float, replicates: NDArray[np.float64], clusters: Clusters, lower_bound: float, confidence: float
) -> Interval:
    if value <= lower_bound:
        return None
    error, _ = _jackknife_error_and_bias(value, replicates, clusters)
    reach = float(np.exp(_t_quantile(clusters, confidence) * error / (value - lower_bound)))
    return lower_bound + (value - lower_bound) / reach, lower_bound + (value - lower_bound) * reach


def difference_interval(
    value: float, replicates: NDArray[np.float64], clusters: Clusters, confidence: float = CONFIDENCE
) -> Interval:
    """The interval of a difference of scores, which has no bounds to respect.

    Returns:
        None: the units are too few.
    """
    if clusters.n_eff < MIN_CLUSTERS or not np.isfinite(replicates).all():
        return None
    error, _ = _jackknife_error_and_bias(value, replicates, clusters)
    reach = _t_quantile(clusters, confidence) * error
    return value - reach, value + reach


def _jackknife_error_and_bias(value: float, replicates: NDArray[np.float64], clusters: Clusters) -> tuple[float, float]:
    """The jackknife's standard error and bias, each stratum by itself."""
    variance = bias = 0.0
    for stratum in np.unique(clusters.strata):
        inside = clusters.strata == stratum
        times, values = clusters.counts[inside], replicates[inside]
        count = times.sum()
        mean = float((times * values).sum() / count)
        variance += float((count - 1) / count * (times * (values - mean) ** 2).sum())
        bias += float((count - 1) * (mean - value))
    return variance**0.5, bias


def _t_quantile(clusters: Clusters, confidence: float) -> float:
    return float(student.ppf((1 + confidence) / 2, clusters.n_eff - 1))
