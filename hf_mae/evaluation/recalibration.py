"""Calibration intercept, slope and curve of the scores of one side against the rest, by logistic recalibration (Cox,
1958, Biometrika 45:562; Van Calster et al., 2019, BMC Medicine 17:230).

The model is logit P(positive) = a + b logit(score). The slope is b: 1 if the scores are calibrated, less if they are
too extreme. The intercept is a if b is 1: 0 if the scores are right on average, less if they are too high. A variance
is that of the maximum-likelihood fit or, if it is larger, the one without a model, multiplied by the design effect of
patients or videos.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from .intervals import INDEPENDENT, QUANTILE, Estimate, Floats, IntervalReason, design_effect, t_quantile
from .metrics import merge_ties

SCORE_BOUND = 1e-8  # scores are limited to this and one minus this
MAX_ITERATIONS = 50  # of Newton's method; more are needed only if the maximum is infinite
CURVE_POINTS, GROUPS = 25, 10


@dataclass(frozen=True)
class CalibrationCurve:
    """Fraction of positive images by score.

    Args:
        scores: from the lowest to the highest score.
        fitted: a fraction per score, by logistic recalibration.
        low, high: pointwise 95 % band of `fitted`; empty: too few images or patients.
        group_scores, group_fractions: mean score and observed fraction of up to ten groups with equal sums of
            score * (1 - score).
    """

    scores: list[float]
    fitted: list[float]
    low: list[float]
    high: list[float]
    group_scores: list[float]
    group_fractions: list[float]


@dataclass(frozen=True)
class Recalibration:
    """Intercept and slope (means over folds and runs), and the curve."""

    intercept: Estimate
    slope: Estimate
    curve: CalibrationCurve


@dataclass(frozen=True)
class _Fit:
    """Maximum-likelihood fit of a logistic regression.

    Args:
        influence: of each image on the coefficients (images, coefficients).
        information: expected squared influence of each image (images, coefficients).
    """

    coefficients: Floats
    covariance: Floats
    influence: Floats
    information: Floats


def recalibrate(
    folds: list[list[Floats]],
    is_positive: list[NDArray[np.bool_]],
    group: NDArray[np.int64] | None,
    reason: IntervalReason | None,
) -> Recalibration | None:
    """Computes the recalibration; None if a fold has one side only, or scores that separate the sides.

    Args:
        folds: scores (images,) of the runs of each fold.
        is_positive: mask of the positive images (images,) of each fold.
        group: patient or video of each image of all folds in turn (images,); None: the images are independent.
        reason: why the intervals are missing; None: they are computed.
    """
    predictors = [[logit(np.clip(scores, SCORE_BOUND, 1 - SCORE_BOUND)) for scores in runs] for runs in folds]
    center = float(np.mean([values.mean() for runs in predictors for values in runs]))
    intercept = _fit_folds(predictors, is_positive, None)
    both = _fit_folds(predictors, is_positive, center)
    if intercept is None or both is None:
        return None
    if reason is not None:
        variances, quantiles = np.zeros(2), np.zeros(2)
        intercept_estimate = Estimate(float(intercept.coefficients[0]), None, reason)
        slope_estimate = Estimate(float(both.coefficients[1]), None, reason)
    else:
        intercept_estimate = _estimate(intercept, 0, group)
        slope_estimate = _estimate(both, 1, group)
        variances, quantiles = np.array([_spread(both, index, group) for index in (0, 1)]).T
    curve = _make_curve(folds, is_positive, both, center, variances, float(quantiles.max()))
    return Recalibration(intercept_estimate, slope_estimate, curve)


def _estimate(fit: _Fit, index: int, group: NDArray[np.int64] | None) -> Estimate:
    value = float(fit.coefficients[index])
    variance, quantile = _spread(fit, index, group)
    margin = quantile * variance**0.5
    return Estimate(value, (value - margin, value + margin))


def _spread(fit: _Fit, index: int, group: NDArray[np.int64] | None) -> tuple[float, float]:
    """Computes the variance of a coefficient, and the quantile of its interval."""
    design, influence = INDEPENDENT, fit.influence[:, index]
    if group is not None:
        design = design_effect(influence, fit.information[:, index], group, 0)
    quantile = QUANTILE if group is None else t_quantile(design.degrees_of_freedom)
    variance = max(float(fit.covariance[index, index]), float(influence @ influence))
    return variance * design.factor, quantile


def _fit_folds(
    predictors: list[list[Floats]], is_positive: list[NDArray[np.bool_]], center: float | None
) -> _Fit | None:
    """Averages the fits over folds and runs; `center` is subtracted from the predictors, None: the slope is 1."""
    parts = []
    for runs, positive in zip(predictors, is_positive):
        fits = []
        for values in runs:
            ones = np.ones((len(values), 1))
            both = ones if center is None else np.column_stack([ones, values - center])
            fits.append(_fit(both, values if center is None else 0 * values, positive.astype(float)))
        if any(fit is None for fit in fits):
            return None
        parts.append([np.mean([getattr(fit, name) for fit in fits], axis=0) for name in _Fit.__dataclass_fields__])
    coefficients, covariance, influence, information = zip(*parts)
    count = len(parts)
    return _Fit(
        np.mean(coefficients, axis=0),
        np.sum(covariance, axis=0) / count**2,
        np.concatenate(influence) / count,
        np.concatenate(information) / count**2,
    )


def _fit(columns: Floats, offset: Floats, outcome: Floats) -> _Fit | None:
    """Fits a logistic regression by Newton's method; None if the maximum is infinite.

    Args:
        columns: (images, coefficients).
        offset: added to the linear predictor (images,).
        outcome: 0 or 1 (images,).
    """
    if outcome.all() or not outcome.any() or (columns.shape[1] > 1 and np.ptp(columns[:, 1]) == 0):
        return None
    coefficients, loss = np.zeros(columns.shape[1]), np.inf
    step = np.zeros_like(coefficients)
    for _ in range(MAX_ITERATIONS):
        linear = columns @ coefficients + offset
        new_loss = float((np.logaddexp(0, linear) - outcome * linear).sum())
        if new_loss > loss + 1e-9:
            step = step / 2
            coefficients = coefficients - step
            continue
        loss, fitted = new_loss, expit(linear)
        weights = fitted * (1 - fitted)
        hessian = (columns * weights[:, None]).T @ columns
        if np.linalg.cond(hessian) > 1e12:
            return None
        inverse = np.linalg.inv(hessian)
        step = inverse @ columns.T @ (outcome - fitted)
        if np.abs(step).max() < 1e-9:
            slopes = columns @ inverse
            return _Fit(coefficients, inverse, slopes * (outcome - fitted)[:, None], slopes**2 * weights[:, None])
        coefficients = coefficients + step
    return None


def _make_curve(
    folds: list[list[Floats]],
    is_positive: list[NDArray[np.bool_]],
    fit: _Fit,
    center: float,
    variances: Floats,
    quantile: float,
) -> CalibrationCurve:
    scores = np.concatenate([np.mean(runs, axis=0) for runs in folds])
    low_end, high_end = np.clip([scores.min(), scores.max()], SCORE_BOUND, 1 - SCORE_BOUND)
    by_logit = expit(np.linspace(logit(low_end), logit(high_end), CURVE_POINTS))
    grid = np.clip(np.union1d(np.linspace(low_end, high_end, CURVE_POINTS), by_logit), low_end, high_end)
    columns = np.column_stack([np.ones(len(grid)), logit(grid) - center])
    linear = columns @ fit.coefficients
    low: list[float] = []
    high: list[float] = []
    if quantile > 0:
        scale = np.sqrt(variances / np.diag(fit.covariance))
        margin = quantile * np.sqrt(np.einsum("ij,jk,ik->i", columns, fit.covariance * np.outer(scale, scale), columns))
        low, high = expit(linear - margin).tolist(), expit(linear + margin).tolist()
    means, fractions = _group_by_score(scores, np.concatenate(is_positive))
    return CalibrationCurve(grid.tolist(), expit(linear).tolist(), low, high, means, fractions)


def _group_by_score(scores: Floats, is_positive: NDArray[np.bool_]) -> tuple[list[float], list[float]]:
    """Computes the mean score and the fraction of positive images of groups; equal scores share a group."""
    levels, level = np.unique(merge_ties(scores), return_inverse=True)
    weights = np.cumsum(np.bincount(level) * (levels * (1 - levels) + SCORE_BOUND))
    _, group = np.unique(np.ceil(GROUPS * weights / weights[-1] - SCORE_BOUND)[level], return_inverse=True)
    counts = np.bincount(group)
    means, fractions = (np.bincount(group, values) / counts for values in (scores, is_positive))
    return means.tolist(), fractions.tolist()
