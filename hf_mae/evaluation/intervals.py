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

from .confusion import IN_GRADES, Floats, ratio, score_names, scores_of
from .statistics import Predictions, Units, units_of, worth_of

CONFIDENCE = 0.95
FEWEST = 3.0  # units that an interval can be made of
LOWEST = {"mcc": -1.0, "qwk": -1.0}  # where it is not 0
Interval = tuple[float, float] | None


def score_intervals(folds: list[Predictions]) -> dict[str, Interval]:
    """95 % intervals of the headline scores, of their mean over folds and runs; None: there are too few units."""
    return {name: found.interval for name, found in estimates(folds).items()}


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; None: there are too few units for one."""

    value: float
    interval: Interval


def estimates(folds: list[Predictions]) -> dict[str, Estimate]:
    """The headline scores, means over folds and runs, with their intervals."""
    units = units_of(folds)
    ordered, grades = folds[0].ordered, folds[0].num_classes - 1
    value, without = left_out(units, partial(scores_of, ordered=ordered))
    found = {}
    for name in score_names(ordered):
        highest = float(grades) if name in IN_GRADES else 1.0
        reach = interval(value[name], without[name], units, LOWEST.get(name, 0.0), highest)
        found[name] = Estimate(value[name], reach)
    return found


@dataclass(frozen=True)
class Rate:
    """A share of the images of a class, or of the others.

    Args:
        worth: the number of images, or of equally large groups, that it is told by.
        interval: 95 %; None: these are too few.
    """

    value: float
    worth: float
    interval: Interval


RATES = ("sensitivity", "specificity", "ppv", "npv")


def rates_by_class(folds: list[Predictions]) -> list[dict[str, Rate]]:
    """Sensitivity (recall), specificity, positive (precision) and negative predictive value of each class against the
    rest, as means over folds and runs; the predictive values are at the prevalence of these images. Intervals are
    Wilson's of independent images, and the jackknife's of patients and videos.

    Returns:
        By class, `RATES`; a rate of no image at all is left out.
    """
    units, classes = units_of(folds), folds[0].num_classes
    value, without = left_out(units, lambda matrices: _flat(_shares(matrices)))
    sizes = {name: np.zeros((len(units.times), classes)) for name in RATES}
    for matrices, members in zip(units.matrices, units.members):
        for name, (_, below) in _shares(matrices).items():
            sizes[name][members] += below.mean(0)
    found: list[dict[str, Rate]] = [{} for _ in range(classes)]
    for label, name in product(range(classes), RATES):
        key, worth = f"{name} {label}", worth_of(sizes[name][:, label], units.times)
        if worth == 0:
            continue
        if units.kind == "images":
            reach = wilson(value[key], worth)
        else:
            reach = interval(value[key], without[key], replace(units, effective=worth))
        found[label][name] = Rate(value[key], worth, reach)
    return found


def wilson(share: float, count: float, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a share of independent images; None: these are too few.

    As `scipy.stats.binomtest(...).proportion_ci(method="wilson")`, for means of shares too.
    """
    if count < FEWEST:
        return None
    z = float(norm.ppf((1 + confidence) / 2))
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5 / (1 + z**2 / count)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def _shares(matrices: Floats) -> dict[str, tuple[Floats, Floats]]:
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


def _flat(shares: dict[str, tuple[Floats, Floats]]) -> dict[str, Floats]:
    values = {name: ratio(above, below) for name, (above, below) in shares.items()}
    return {f"{name} {label}": of[..., label] for name, of in values.items() for label in range(of.shape[-1])}


def left_out(
    units: Units, scores: Callable[[Floats], dict[str, Floats]]
) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
    """The mean of scores over folds and runs, and the same without each unit (units,).

    Args:
        scores: of confusion matrices (..., classes, classes), by name.
    """
    value: dict[str, float] = {}
    change: dict[str, NDArray[np.float64]] = {}
    weight = 1.0 / len(units.matrices)
    for matrices, members in zip(units.matrices, units.members):
        total = np.einsum("rukl,u->rkl", matrices, units.times[members].astype(float))
        with np.errstate(invalid="ignore"):  # without a unit that is everything there is nothing
            whole, without = scores(total), scores(total[:, None] - matrices)
        for name in whole:
            value[name] = value.get(name, 0.0) + weight * float(whole[name].mean())
            found = change.setdefault(name, np.zeros(len(units.times)))
            found[members] += weight * (without[name] - whole[name][:, None]).mean(0)
    return value, {name: value[name] + found for name, found in change.items()}


def interval(
    value: float,
    without: NDArray[np.float64],
    units: Units,
    lowest: float = 0.0,
    highest: float = 1.0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """The interval of a score that lies between `lowest` and `highest` (infinite: on the logarithm).

    At a bound the jackknife sees nothing: there it reaches as far as the exact binomial one of as many units.

    Args:
        without: the score without each unit (units,).

    Returns:
        None: the units are too few.
    """
    if units.effective < FEWEST or not np.isfinite(without).all():
        return None
    if np.isinf(highest):
        return _above(value, without, units, lowest, confidence)
    width = highest - lowest
    share = (value - lowest) / width
    if share <= 0 or share >= 1 or np.ptp(without) == 0:
        reach = width * (1 - ((1 - confidence) / 2) ** (1 / units.effective))
        return max(lowest, value - reach), min(highest, value + reach)
    error, bias = _error_and_bias(share, (without - lowest) / width, units)
    if units.kind == "images" and 0 < share - bias < 1:
        share -= bias
    centre, reach = float(logit(share)), _quantile(units, confidence) * error / (share * (1 - share))
    return lowest + width * float(expit(centre - reach)), lowest + width * float(expit(centre + reach))


def _above(value: float, without: NDArray[np.float64], units: Units, lowest: float, confidence: float) -> Interval:
    if value <= lowest:
        return None
    error, _ = _error_and_bias(value, without, units)
    reach = float(np.exp(_quantile(units, confidence) * error / (value - lowest)))
    return lowest + (value - lowest) / reach, lowest + (value - lowest) * reach


def difference_interval(
    value: float, without: NDArray[np.float64], units: Units, confidence: float = CONFIDENCE
) -> Interval:
    """The interval of a difference of scores, which has no bounds to respect.

    Returns:
        None: the units are too few.
    """
    if units.effective < FEWEST or not np.isfinite(without).all():
        return None
    error, _ = _error_and_bias(value, without, units)
    reach = _quantile(units, confidence) * error
    return value - reach, value + reach


def _error_and_bias(value: float, without: NDArray[np.float64], units: Units) -> tuple[float, float]:
    """The jackknife's standard error and bias, each stratum by itself."""
    variance = bias = 0.0
    for stratum in np.unique(units.strata):
        inside = units.strata == stratum
        times, values = units.times[inside], without[inside]
        count = times.sum()
        mean = float((times * values).sum() / count)
        variance += float((count - 1) / count * (times * (values - mean) ** 2).sum())
        bias += float((count - 1) * (mean - value))
    return variance**0.5, bias


def _quantile(units: Units, confidence: float) -> float:
    return float(student.ppf((1 + confidence) / 2, units.effective - 1))
