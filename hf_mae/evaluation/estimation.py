"""Scores of the predictions of folds and runs, with 95 % intervals, for images or for patients and videos.

A score is a mean over folds and runs. Its variance is the sum over images, or over patients, of their squared
influences on it: the derivatives of the score with respect to the cells of the confusion matrices (delta method). The
derivatives are taken at smoothed matrices, in which each class has a few more right and wrong images, so that no
variance is zero. The module `intervals` contains the arithmetic of the intervals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ..settings.metrics import METRICS, MetricKind
from .intervals import (
    INDEPENDENT,
    MIN_EFFECTIVE_GROUPS,
    MIN_UNITS,
    PSEUDO_IMAGES,
    QUANTILE,
    DesignEffect,
    Estimate,
    Floats,
    Interval,
    IntervalReason,
    design_effect,
    effective_wilson_interval,
    score_interval,
    t_quantile,
)
from .metrics import ConfusionMatrices, headline_metric_names, safe_divide
from .prediction_table import Predictions, effective_sample_size

RATES = ("sensitivity", "specificity", "ppv", "npv")
PSEUDO_ERRORS = 2.0  # errors at any distance that smooth the distances of the observed errors
CELLS_AT_ONCE = 5_000_000  # numbers in memory at once for numeric derivatives


@dataclass(frozen=True)
class Rate:
    """Rate of one class against the rest, such as a sensitivity.

    Args:
        n_eff: effective number of images in the denominator.
        interval: 95 % interval; None: too few images.
        reason: why the interval is None.
    """

    value: float
    n_eff: float
    interval: Interval
    reason: IntervalReason | None = None


@dataclass(frozen=True)
class Influence:
    """Influence of the images on a score.

    Args:
        values: of each image, of all folds in turn (images,).
        information: expected squared influence of each image (images,).
        pseudo_variance: variance that the smoothing adds.
    """

    values: Floats
    information: Floats
    pseudo_variance: float

    @property
    def variance(self) -> float:
        """Variance of the score if the images are independent."""
        return float((self.values**2).sum()) + self.pseudo_variance

    @property
    def degrees_of_freedom(self) -> float:
        """Degrees of freedom of the variance (Satterthwaite, 1946): few if a few images have most of the influence."""
        squares = self.values**2
        return 2 * self.variance**2 / max(float((squares**2).sum() - squares.sum() ** 2 / len(squares)), 1e-300)

    def design(self, group: NDArray[np.int64] | None) -> DesignEffect:
        """Estimates the design effect.

        Args:
            group: patient or video of each image (images,); None: the images are independent.
        """
        if group is None:
            return INDEPENDENT
        return design_effect(self.values, self.information, group, self.pseudo_variance)


class Sample:
    """Predictions of folds, with what all scores need.

    Args:
        folds: predictions, one entry per fold.
        pseudo_images: right and wrong images each that smooth the confusion matrices, shared by all classes.
    """

    def __init__(self, folds: Sequence[Predictions], pseudo_images: float = PSEUDO_IMAGES):
        self.folds = list(folds)
        self.num_classes, self.ordered = folds[0].num_classes, folds[0].ordered
        self.matrices = [fold.confusion_matrices() for fold in folds]
        self._pseudo_images = pseudo_images / len(folds)
        self.smoothed = [smooth_matrices(matrices, self._pseudo_images) for matrices in self.matrices]
        self.num_images = sum(len(fold.labels) for fold in folds)

    @cached_property
    def smoothed_grades(self) -> list[Floats]:
        """The smoothed matrices of scores by the distance of grades."""
        return [smooth_matrices(matrices, self._pseudo_images, grades=True) for matrices in self.matrices]

    def smoothed_for(self, name: str) -> list[Floats]:
        """Returns the smoothed matrices of a score of `METRICS`."""
        return self.smoothed_grades if METRICS[name].kind is MetricKind.ORDINAL else self.smoothed

    @cached_property
    def group(self) -> NDArray[np.int64] | None:
        """Patient or video of each image, of all folds in turn (images,); None: not known."""
        return group_ids(self.folds)

    @property
    def units(self) -> str:
        """`images` or `groups`: the independent units."""
        return "images" if self.group is None else "groups"

    @cached_property
    def n_eff(self) -> float:
        """Effective number of images, or of patients (Kish)."""
        sizes = np.ones(self.num_images) if self.group is None else np.bincount(self.group)
        return effective_sample_size(sizes, np.ones(len(sizes)))

    @property
    def reason(self) -> IntervalReason | None:
        """Why the scores have no intervals; None: they have."""
        return too_few_units(self.num_images, self.group)

    def confusion(self, matrices: Floats) -> ConfusionMatrices:
        """Returns confusion matrices (..., classes, classes) whose means are over the classes of this sample."""
        return ConfusionMatrices(matrices, self.folds[0].macro_over_labels)

    def value(self, function: Callable[[Floats], Floats]) -> float:
        """Computes the mean of a score over folds and runs, from confusion matrices (runs, classes, classes)."""
        return float(np.mean([function(matrices).mean() for matrices in self.matrices]))

    def influence(self, derivatives: Sequence[Floats], smoothed_matrices: Sequence[Floats]) -> Influence:
        """Computes the influence of the images on a score.

        Args:
            derivatives: per fold, of the score with respect to the cells, at the smoothed matrices (runs, classes,
                classes).
            smoothed_matrices: per fold (runs, classes, classes).
        """
        values, information, pseudo_variance, count = [], [], 0.0, len(self.folds)
        for fold, slopes, matrices, smoothed in zip(self.folds, derivatives, self.matrices, smoothed_matrices):
            runs = np.arange(len(fold.predicted))[:, None]
            values.append(slopes[runs, fold.labels, fold.predicted].mean(0) / count)
            squares = smoothed * slopes**2
            by_class = safe_divide(squares.sum(-1), smoothed.sum(-1)).mean(0) / count**2
            information.append(by_class[fold.labels])
            pseudo_variance += float((squares - matrices * slopes**2).sum((-2, -1)).mean()) / count**2
        return Influence(np.concatenate(values), np.concatenate(information), pseudo_variance)


def too_few_units(num_images: int, group: NDArray[np.int64] | None) -> IntervalReason | None:
    """Returns why there are too few images, or patients, for an interval; None: there are enough.

    Args:
        group: patient or video of each image (images,), from 0; None: not known.
    """
    if group is None:
        return None if num_images >= MIN_UNITS else IntervalReason.TOO_FEW_IMAGES
    sizes = np.bincount(group)
    enough = len(sizes) >= MIN_UNITS and effective_sample_size(sizes, np.ones(len(sizes))) >= MIN_EFFECTIVE_GROUPS
    return None if enough else IntervalReason.TOO_FEW_GROUPS


def group_ids(folds: Sequence[Predictions]) -> NDArray[np.int64] | None:
    """Numbers the patients or videos of all folds (images,); None: a fold has none."""
    if any(fold.groups is None for fold in folds):
        return None
    names = np.concatenate([np.asarray(fold.groups).astype(str) for fold in folds])
    ids: NDArray[np.int64] = np.unique(names, return_inverse=True)[1].ravel()
    return ids


def smooth_matrices(matrices: Floats, pseudo_images: float, grades: bool = False) -> Floats:
    """Adds right and wrong images to confusion matrices (runs, classes, classes).

    Each class that occurs gets an equal share of the right and of the wrong ones. The wrong ones are distributed over
    the other classes half evenly and half in proportion to the predictions.

    Args:
        grades: whether the wrong images are near their grade if the observed errors are, so that few errors of one
            grade do not count like errors of many grades.
    """
    occurs = (matrices.sum(-1) + matrices.sum(-2)) > 0
    occurs |= occurs.sum(-1, keepdims=True) < 2  # if only one class occurs: all
    share = pseudo_images / occurs.sum(-1)[:, None, None]
    columns = (safe_divide(matrices.sum(-2), matrices.sum((-2, -1))[:, None]) + 1 / matrices.shape[-1]) * occurs
    identity = np.eye(matrices.shape[-1])
    wrong = columns[:, None, :] * (1 - identity)
    if grades:
        wrong = wrong * _tilt_to_observed_distances(matrices, wrong)
    wrong = wrong / wrong.sum(-1, keepdims=True)
    smoothed: Floats = matrices + share * occurs[:, :, None] * (identity + wrong)
    return smoothed


def _tilt_to_observed_distances(matrices: Floats, wrong: Floats) -> Floats:
    """Computes the factors a^(distance - 1) of weights of errors (runs, classes, classes), with 0 < a <= 1, that give
    them the mean distance of the observed errors and of `PSEUDO_ERRORS`, which have these weights."""
    distance = ConfusionMatrices(matrices).distance.astype(int)
    largest = distance.max() if distance.size else 0
    of_distance = (distance.ravel() == np.arange(1, largest + 1)[:, None]).astype(float).T  # (cells, distances)
    weights, errors = (values.reshape(len(matrices), -1) @ of_distance for values in (wrong, matrices))
    excess = np.arange(largest)
    mean = (errors @ excess + PSEUDO_ERRORS * (weights @ excess) / weights.sum(-1)) / (errors.sum(-1) + PSEUDO_ERRORS)
    low, high = np.zeros(len(matrices)), np.ones(len(matrices))
    for _ in range(24):
        middle = (low + high) / 2
        beyond = (weights * middle[:, None] ** excess) @ excess > mean * (weights * middle[:, None] ** excess).sum(-1)
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    factors: Floats = high[:, None, None] ** np.maximum(distance - 1, 0)
    return factors


# Scores that are sums of proportions


@dataclass(frozen=True)
class Proportions:
    """Score that is a weighted sum of proportions, or of F1 values, of confusion matrices.

    Args:
        counts: computes the numerators and denominators (..., terms) of the proportions.
        weights: computes the weights (..., terms).
        derivatives: computes the derivatives of the score (..., classes, classes) from smoothed matrices and weights.
        f1: whether the terms are F1 values, and the proportions Jaccard indices.
    """

    counts: Callable[[ConfusionMatrices], tuple[Floats, Floats]]
    weights: Callable[[ConfusionMatrices], Floats]
    derivatives: Callable[[ConfusionMatrices, Floats], Floats]
    f1: bool = False


def _one(m: ConfusionMatrices) -> Floats:
    return np.ones((*m.total.shape, 1))


def _over_occurring(m: ConfusionMatrices) -> Floats:
    weights: Floats = m.occurs / m.occurs.sum(-1, keepdims=True)
    return weights


def _over_references(m: ConfusionMatrices) -> Floats:
    weights: Floats = (m.support > 0) / (m.support > 0).sum(-1, keepdims=True)
    return weights


def _mean_derivatives(m: ConfusionMatrices, values: Floats) -> Floats:
    """Differentiates the mean over images of values (classes, classes) of the cells."""
    mean = ((m.counts * values).sum((-2, -1)) / m.total)[..., None, None]
    derivatives: Floats = (values - mean) / m.total[..., None, None]
    return derivatives


def _recall_derivatives(m: ConfusionMatrices, weights: Floats) -> Floats:
    scale = safe_divide(weights, m.support)
    derivatives: Floats = (np.eye(m.counts.shape[-1]) - m.recall[..., None]) * scale[..., None]
    return derivatives


def _precision_derivatives(m: ConfusionMatrices, weights: Floats) -> Floats:
    scale = safe_divide(weights, m.predicted)
    derivatives: Floats = (np.eye(m.counts.shape[-1]) - m.precision[..., None, :]) * scale[..., None, :]
    return derivatives


def _f1_derivatives(m: ConfusionMatrices, weights: Floats) -> Floats:
    scale = safe_divide(weights, m.support + m.predicted)
    right, loss = np.eye(m.counts.shape[-1]) * (2 * scale)[..., None], m.f1 * scale
    derivatives: Floats = right - loss[..., None] - loss[..., None, :]
    return derivatives


def _near(m: ConfusionMatrices) -> Floats:
    near: Floats = (m.distance <= 1).astype(float)
    return near


PROPORTIONS = {
    "accuracy": Proportions(
        lambda m: (m.correct[..., None], m.total[..., None]),
        _one,
        lambda m, _: _mean_derivatives(m, np.eye(m.counts.shape[-1])),
    ),
    "one_off_accuracy": Proportions(
        lambda m: ((m.counts * _near(m)).sum((-2, -1))[..., None], m.total[..., None]),
        _one,
        lambda m, _: _mean_derivatives(m, _near(m)),
    ),
    "macro_recall": Proportions(lambda m: (m.by_class, m.support), _over_occurring, _recall_derivatives),
    "balanced_accuracy": Proportions(lambda m: (m.by_class, m.support), _over_references, _recall_derivatives),
    "macro_precision": Proportions(lambda m: (m.by_class, m.predicted), _over_occurring, _precision_derivatives),
    "macro_f1": Proportions(
        lambda m: (m.by_class, m.support + m.predicted - m.by_class), _over_occurring, _f1_derivatives, f1=True
    ),
}


def class_f1(label: int) -> Proportions:
    """Returns the F1 of one class."""
    macro = PROPORTIONS["macro_f1"]
    return Proportions(macro.counts, lambda m: _one_hot(m, label), macro.derivatives, f1=True)


def class_rate(name: str, label: int) -> Proportions:
    """Returns a rate of one class against the rest, one of `RATES`."""

    def counts(m: ConfusionMatrices) -> tuple[Floats, Floats]:
        right, support, predicted = (values[..., label] for values in (m.by_class, m.support, m.predicted))
        negative = m.total - support - predicted + right
        numerator, denominator = {
            "sensitivity": (right, support),
            "ppv": (right, predicted),
            "specificity": (negative, m.total - support),
            "npv": (negative, m.total - predicted),
        }[name]
        return numerator[..., None], denominator[..., None]

    def derivatives(m: ConfusionMatrices, weights: Floats) -> Floats:
        is_label = np.arange(m.counts.shape[-1]) == label
        side = is_label if name in ("sensitivity", "ppv") else ~is_label
        both = np.outer(side, side).astype(float)
        inside = np.broadcast_to(side[:, None] if name in ("sensitivity", "specificity") else side, both.shape)
        numerator, denominator = counts(m)
        rate = safe_divide(numerator, denominator)[..., None]
        slopes: Floats = (both - rate * inside) * safe_divide(np.ones_like(denominator), denominator)[..., None]
        return slopes

    return Proportions(counts, _one, derivatives)


def _one_hot(m: ConfusionMatrices, label: int) -> Floats:
    weights = np.zeros(m.support.shape)
    weights[..., label] = 1.0
    return weights


@dataclass(frozen=True)
class ProportionFit:
    """Proportions of a sample, as `score_interval` takes them.

    Args:
        value: the score, as a mean over folds and runs.
        proportions, trials, weights: of the terms of all folds (terms,).
        design: factor of the variance.
        quantile: of the normal or of Student's t distribution.
    """

    value: float
    proportions: Floats
    trials: Floats
    weights: Floats
    design: float
    quantile: float
    f1: bool

    def interval(self) -> tuple[float, float]:
        """Computes the score interval."""
        return solve_intervals([self])[0]


def solve_intervals(fits: Sequence[ProportionFit]) -> list[tuple[float, float]]:
    """Computes the score intervals of fits of proportions, or of F1 values, in one search."""
    if not fits:
        return []
    padded = np.zeros((3, len(fits), max(len(fit.trials) for fit in fits)))
    for row, fit in enumerate(fits):
        padded[:, row, : len(fit.trials)] = fit.proportions, fit.trials, fit.weights
    design, quantile = np.array([fit.design for fit in fits]), np.array([fit.quantile for fit in fits])
    proportions, trials, weights = padded
    ends = score_interval(proportions, trials, weights, design, quantile, fits[0].f1)
    return [
        (min(low, fit.value), max(high, fit.value)) for fit, low, high in zip(fits, *(end.tolist() for end in ends))
    ]


def fit_proportions(sample: Sample, score: Proportions) -> ProportionFit:
    """Computes the proportions of a score, and the factor of their variance: runs, correlated terms and patients."""
    terms, derivatives, binomial, count = [], [], 0.0, len(sample.folds)
    for matrices, smoothed in zip(sample.matrices, sample.smoothed):
        raw, smooth = sample.confusion(matrices), sample.confusion(smoothed)
        numerator, denominator = score.counts(raw)
        weights = score.weights(raw)
        proportion = safe_divide(numerator, denominator)
        if score.f1:
            mean = (2 * proportion / (1 + proportion)).mean(0)
            proportion = (mean / (2 - mean))[None]
        terms.append((proportion.mean(0), denominator.mean(0), weights.mean(0) / count))
        effective = weights * (denominator > 0)
        derivatives.append(score.derivatives(smooth, effective))
        numerator, denominator = score.counts(smooth)
        p = safe_divide(numerator, denominator)
        slope = 2 / (1 + p) ** 2 if score.f1 else 1.0
        binomial += float(((effective * slope) ** 2 * safe_divide(p * (1 - p), denominator)).sum(-1).mean()) / count**2
    proportions, trials, all_weights = (np.concatenate(parts) for parts in zip(*terms))
    influence = sample.influence(derivatives, sample.smoothed)
    design = influence.design(sample.group)
    factor = design.factor * influence.variance / binomial if binomial > 0 else design.factor
    quantile = QUANTILE if sample.group is None else t_quantile(design.degrees_of_freedom)
    value = float((all_weights * (2 * proportions / (1 + proportions) if score.f1 else proportions)).sum())
    return ProportionFit(value, proportions, trials, all_weights, factor, quantile, score.f1)


# Other scores of confusion matrices


def _mcc_derivatives(m: ConfusionMatrices) -> Floats:
    total, spread = m.total[..., None, None], m.spread[..., None, None]
    rows, columns = m.support[..., None], m.predicted[..., None, :]
    covariance = (m.correct * m.total - m.expected)[..., None, None]
    slope = m.correct[..., None, None] + total * np.eye(m.counts.shape[-1])
    slope = slope - m.predicted[..., None] - m.support[..., None, :]
    references = (m.total**2 - (m.support**2).sum(-1))[..., None, None]
    predictions = (m.total**2 - (m.predicted**2).sum(-1))[..., None, None]
    change = (total - rows) / references + (total - columns) / predictions
    derivatives: Floats = slope / spread - covariance / spread * change
    return derivatives


def _kappa_derivatives(m: ConfusionMatrices, disagreement: Floats) -> Floats:
    """Differentiates 1 - observed / expected disagreement, by weights of the cells (classes, classes)."""
    observed = (m.counts * disagreement).sum((-2, -1))[..., None, None]
    by_row = (m.predicted @ disagreement.T)[..., None]
    by_column = (m.support @ disagreement)[..., None, :]
    expected = (m.support * by_row[..., 0]).sum(-1)[..., None, None]
    total = m.total[..., None, None]
    derivatives: Floats = total * observed * (by_row + by_column) / expected**2 - (
        (observed + total * disagreement) / expected
    )
    return derivatives


DERIVATIVES: dict[str, Callable[[ConfusionMatrices], Floats]] = {
    "mcc": _mcc_derivatives,
    "kappa": lambda m: _kappa_derivatives(m, 1 - np.eye(m.counts.shape[-1])),
    "qwk": lambda m: _kappa_derivatives(m, m.distance**2),
    "mae": lambda m: _mean_derivatives(m, m.distance),
}
CHANCE = {"mcc": 0.0, "kappa": 0.0, "qwk": 0.0}  # scores of a random prediction


def numeric_derivatives(m: ConfusionMatrices, function: Callable[[ConfusionMatrices], Floats]) -> Floats:
    """Differentiates a score without closed derivatives (classes, classes) by central differences."""
    shape = m.counts.shape
    size = shape[-1] ** 2
    derivatives = np.zeros((int(np.prod(shape[:-2])), size))
    for row, matrix in zip(derivatives, m.counts.reshape(-1, size)):
        step = 1e-4 * matrix.sum() / size
        for start in range(0, size, max(CELLS_AT_ONCE // size, 1)):
            cells = np.arange(start, min(start + max(CELLS_AT_ONCE // size, 1), size))
            change = np.zeros((len(cells), size))
            change[np.arange(len(cells)), cells] = np.minimum(step, matrix[cells] / 2 + 1e-9)
            ends = [function(ConfusionMatrices((matrix + sign * change).reshape(-1, *shape[-2:]))) for sign in (1, -1)]
            row[cells] = (ends[0] - ends[1]) / (2 * change.sum(1))
    return derivatives.reshape(shape)


def proportion_slopes(score: Proportions, raw: ConfusionMatrices, smooth: ConfusionMatrices) -> Floats:
    """Differentiates a sum of proportions at smoothed matrices (..., classes, classes); the weights are those of the
    raw ones."""
    return score.derivatives(smooth, score.weights(raw) * (score.counts(raw)[1] > 0))


def score_slopes(name: str, raw: ConfusionMatrices, smooth: ConfusionMatrices) -> Floats:
    """Differentiates a score of `METRICS` at smoothed matrices (..., classes, classes)."""
    if name in PROPORTIONS:
        return proportion_slopes(PROPORTIONS[name], raw, smooth)
    return DERIVATIVES[name](smooth) if name in DERIVATIVES else numeric_derivatives(smooth, matrix_function(name))


def proportion_influence(sample: Sample, score: Proportions) -> Influence:
    """Computes the influence of the images on a sum of proportions."""
    pairs = zip(sample.matrices, sample.smoothed)
    slopes = [proportion_slopes(score, sample.confusion(raw), sample.confusion(smooth)) for raw, smooth in pairs]
    return sample.influence(slopes, sample.smoothed)


def score_influence(sample: Sample, name: str) -> Influence:
    """Computes the influence of the images on a score of confusion matrices, by its name in `METRICS`."""
    smoothed = sample.smoothed_for(name)
    pairs = zip(sample.matrices, smoothed)
    slopes = [score_slopes(name, sample.confusion(raw), sample.confusion(smooth)) for raw, smooth in pairs]
    return sample.influence(slopes, smoothed)


def matrix_function(name: str) -> Callable[[ConfusionMatrices], Floats]:
    """Returns the function of confusion matrices that computes a score of `METRICS`."""
    function = METRICS[name].function
    assert function is not None, name
    return function


# Estimates


def estimate_score(sample: Sample, name: str) -> Estimate:
    """Estimates a score of confusion matrices (mean over folds and runs), by its name in `METRICS`.

    Proportions and means over classes have the score interval; other scores have Wilson's interval for the effective
    number of images.
    """
    metric, function = METRICS[name], matrix_function(name)
    value = sample.value(lambda matrices: function(sample.confusion(matrices)))
    missing = _classes_without_images(sample, name)
    if sample.reason is not None:
        return Estimate(value, None, sample.reason, missing)
    if name in PROPORTIONS:
        low, high = fit_proportions(sample, PROPORTIONS[name]).interval()
        return Estimate(value, (min(low, value), max(high, value)), None, missing)
    influence = score_influence(sample, name)
    design = influence.design(sample.group)
    smoothed = float(np.mean([function(sample.confusion(matrices)).mean() for matrices in sample.smoothed_for(name)]))
    interval = effective_wilson_interval(
        value,
        influence.variance * design.factor,
        smoothed,
        min(design.degrees_of_freedom, influence.degrees_of_freedom),
        metric.low,
        metric.upper_bound(sample.num_classes),
        CHANCE.get(name),
    )
    return Estimate(value, interval, None, missing)


def _classes_without_images(sample: Sample, name: str) -> tuple[int, ...]:
    """Returns the classes whose proportion has no denominator in a fold and run in which they occur."""
    if name not in PROPORTIONS or PROPORTIONS[name].weights is _one:
        return ()
    missing: set[int] = set()
    for matrices in sample.matrices:
        raw = sample.confusion(matrices)
        absent = (PROPORTIONS[name].counts(raw)[1] == 0) & raw.occurs
        missing |= set(np.flatnonzero(absent.any(0)).tolist())
    return tuple(sorted(missing))


def estimate_headline_metrics(folds: Sequence[Predictions]) -> dict[str, Estimate]:
    """Estimates the headline metrics (means over folds and runs) with their 95 % intervals.

    Args:
        folds: predictions, one entry per fold.
    """
    sample = Sample(folds)
    return {name: estimate_score(sample, name) for name in headline_metric_names(sample.ordered)}


def headline_metric_intervals(folds: Sequence[Predictions]) -> dict[str, Interval]:
    """Computes 95 % intervals of the headline metrics; None for too few images or patients."""
    return {name: estimate.interval for name, estimate in estimate_headline_metrics(folds).items()}


def estimate_class_f1(folds: Sequence[Predictions], label: int) -> Estimate:
    """Estimates the F1 of one class (mean over folds and runs)."""
    sample = Sample(folds)
    fit, reason = fit_proportions(sample, class_f1(label)), too_few_in_denominator(sample, "f1", label)
    return Estimate(fit.value, None if reason else fit.interval(), reason)


def estimate_rate(sample: Sample, name: str, label: int) -> Rate | None:
    """Estimates a rate of one class against the rest (mean over folds and runs); None: its denominator is empty."""
    n_eff = denominator_size(sample, name, label)
    if n_eff == 0:
        return None
    fit, reason = fit_proportions(sample, class_rate(name, label)), too_few_in_denominator(sample, name, label)
    return Rate(fit.value, n_eff, None if reason else fit.interval(), reason)


def too_few_in_denominator(sample: Sample, name: str, label: int) -> IntervalReason | None:
    """Returns why a rate or the F1 (`f1`) of a class has no interval; None: it has one."""
    if sample.group is None:
        few = denominator_size(sample, name, label) < MIN_UNITS
        return sample.reason or (IntervalReason.TOO_FEW_IMAGES if few else None)
    few = denominator_size(sample, name, label) < MIN_EFFECTIVE_GROUPS
    return sample.reason or (IntervalReason.TOO_FEW_GROUPS if few else None)


def denominator_size(sample: Sample, name: str, label: int) -> float:
    """Computes the effective number of images, or of patients (Kish), in the denominator of a rate or of F1."""
    sizes = []
    for fold in sample.folds:
        ids = fold.labels[None] if name in ("sensitivity", "specificity") else fold.predicted
        inside = ids == label if name in ("sensitivity", "ppv", "f1") else ids != label
        sizes.append((inside | (fold.labels == label) if name == "f1" else inside).mean(0))
    by_image = np.concatenate(sizes)
    if sample.group is None:
        return float(by_image.sum())
    by_group = np.bincount(sample.group, by_image)
    return effective_sample_size(by_group, np.ones(len(by_group)))


def estimate_rates_by_class(folds: Sequence[Predictions]) -> list[dict[str, Rate]]:
    """Estimates the sensitivity (recall), specificity, positive (precision) and negative predictive value of each class
    against the rest, as means over folds and runs.

    Predictive values are at the prevalence of these images. For independent images and one run, the intervals are
    Wilson's.

    Returns:
        `RATES` per class; a rate with an empty denominator is omitted.
    """
    sample, classes = Sample(folds), range(folds[0].num_classes)
    sizes = {(label, name): denominator_size(sample, name, label) for label, name in product(classes, RATES)}
    fits = {key: fit_proportions(sample, class_rate(key[1], key[0])) for key, size in sizes.items() if size > 0}
    rates: list[dict[str, Rate]] = [{} for _ in classes]
    for ((label, name), fit), interval in zip(fits.items(), solve_intervals(list(fits.values()))):
        reason = too_few_in_denominator(sample, name, label)
        rates[label][name] = Rate(fit.value, sizes[label, name], None if reason else interval, reason)
    return rates
