"""Differences of the scores of two models on the same images, with intervals and tests at a margin (non-inferiority,
equivalence).

The variance of a difference is that of the difference of the influences of each image, or patient, on the two scores
(for AUROC: DeLong et al., 1988), with smoothed counts (Agresti and Min, 2005, Stat Med 24:729). Intervals are
Student's. The degrees of freedom of independent images are those of a sum of the variances of the classes (Welch, 1947,
Biometrika 34:28): few if a few small classes have most of the variance.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit
from scipy.stats import rankdata

from ..errors import CommandLineError
from ..settings.metrics import METRICS, Metric, MetricKind, metric_names
from .estimation import (
    RATES,
    Influence,
    Proportions,
    Sample,
    class_f1,
    class_rate,
    denominator_size,
    group_ids,
    matrix_function,
    numeric_derivatives,
    proportion_influence,
    score_influence,
    too_few_in_denominator,
    too_few_units,
)
from .intervals import (
    CONFIDENCE,
    PSEUDO_IMAGES_OF_DIFFERENCE,
    Floats,
    Interval,
    IntervalReason,
)
from .messages import EvaluationMessage
from .metrics import ConfusionMatrices, safe_divide
from .operating_points import predictive_values
from .prediction_table import Predictions
from .probability_metrics import binary_auroc, binary_average_precision, mean_influence, ranking_influence

RANKING_FUNCTIONS = {"roc_auc": binary_auroc, "average_precision": binary_average_precision}
BINARY_SCORES = (*RATES, "f1")
MARGIN_SCORES = (
    *metric_names(MetricKind.HEADLINE, MetricKind.ORDINAL, MetricKind.SECONDARY),
    *(name for name in metric_names(MetricKind.PROBABILITY) if METRICS[name].compared),
    *BINARY_SCORES,
)


@dataclass(frozen=True)
class ScoreDifference:
    """Difference of a score: the second model minus the first.

    Args:
        variance: of the difference; NaN with a `reason`.
        degrees_of_freedom: of Student's t.
        width: upper minus lower bound of the score: the greatest difference.
        reason: why the interval is None.
    """

    value: float
    variance: float
    degrees_of_freedom: float
    width: float
    reason: IntervalReason | None = None

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Computes the interval; None with a `reason`."""
        if self.reason is not None:
            return None
        margin = float(stdtrit(self.degrees_of_freedom, (1 + confidence) / 2)) * self.variance**0.5
        return max(self.value - margin, -self.width), min(self.value + margin, self.width)

    def p_value_above(self, limit: float) -> float | None:
        """Computes the one-sided p value of the hypothesis that the difference is at most `limit`."""
        if self.reason is not None:
            return None
        return float(stdtr(self.degrees_of_freedom, (limit - self.value) / self.variance**0.5))


@dataclass(frozen=True)
class ModelScore:
    """Score of one model, and the influence of each image on it.

    Args:
        width: upper minus lower bound of the score.
        degrees_of_freedom: of the variance of independent images.
        reason: why it has no interval.
        from_counts: whether it is a score of confusion matrices.
    """

    value: float
    influence: Influence
    width: float
    degrees_of_freedom: float = np.inf
    reason: IntervalReason | None = None
    from_counts: bool = False


class ModelScores:
    """Scores of a model, each computed once for all comparisons.

    Args:
        folds: predictions, one entry per fold.
        prevalence: prevalence of the predictive values; None: that of the images.
        binary: whether class 1 is the positive one of two: AUROC and average precision are its own, not means.
    """

    def __init__(self, folds: Sequence[Predictions], prevalence: float | None = None, binary: bool = False):
        self.folds, self.prevalence = list(folds), prevalence
        self.class_ids = [1] if binary else list(range(folds[0].num_classes))
        self._scores: dict[str, ModelScore | None] = {}

    @cached_property
    def sample(self) -> Sample:
        """The smoothed sample of differences."""
        return Sample(self.folds, PSEUDO_IMAGES_OF_DIFFERENCE)

    @cached_property
    def group(self) -> NDArray[np.int64] | None:
        """Patient or video of each image (images,); None: not known."""
        return group_ids(self.folds)

    @cached_property
    def ranks(self) -> list[Floats]:
        """Ranks of the scores of `class_ids` in each fold (runs, images, classes)."""
        return [rankdata(fold.known_scores[..., self.class_ids], axis=1) for fold in self.folds]

    @cached_property
    def losses(self) -> dict[str, list[Floats]]:
        """Brier scores and log losses of the images of each fold (runs, images)."""
        return {name: [_image_losses(fold, name) for fold in self.folds] for name in ("brier", "log_loss")}

    @cached_property
    def smallest_class(self) -> Floats:
        """Number of images of the class, or of the predictions, of each image: the smaller one (images,)."""
        smallest = []
        for fold, counts in zip(self.folds, self.sample.matrices):
            predicted = counts.sum(-2)[np.arange(len(counts))[:, None], fold.predicted].min(0)
            smallest.append(np.minimum(counts[0].sum(-1)[fold.labels], predicted))
        return np.concatenate(smallest)

    @cached_property
    def stratum(self) -> NDArray[np.int64]:
        """Number of the class and fold of each image (images,)."""
        classes = self.sample.num_classes
        return np.concatenate([fold.labels + classes * number for number, fold in enumerate(self.folds)])

    @cached_property
    def stratum_size(self) -> Floats:
        """Smoothed number of images of each class and fold (strata,)."""
        return np.concatenate([smoothed[0].sum(-1) for smoothed in self.sample.smoothed])

    def score(self, name: str) -> ModelScore | None:
        """Computes a score of `METRICS` or of `BINARY_SCORES`; None: it is not defined."""
        if name not in self._scores:
            self._scores[name] = self._compute(name)
        return self._scores[name]

    def _compute(self, name: str) -> ModelScore | None:
        if name in BINARY_SCORES:
            return self._compute_rate(name)
        metric = METRICS[name]
        if metric.kind is MetricKind.PROBABILITY:
            known = all(fold.class_scores is not None for fold in self.folds)
            return self._compute_of_scores(metric) if known else None
        if metric.kind is MetricKind.ORDINAL and not self.sample.ordered:
            return None
        function, width = matrix_function(name), metric.upper_bound(self.sample.num_classes) - metric.low
        value = self.sample.value(lambda matrices: function(self.sample.confusion(matrices)))
        return ModelScore(value, score_influence(self.sample, name), width, from_counts=True)

    def _compute_of_scores(self, metric: Metric) -> ModelScore | None:
        width = metric.upper_bound(self.folds[0].num_classes) - metric.low
        if metric.name not in RANKING_FUNCTIONS:
            assert metric.function is not None, metric.name
            value, _, influence = mean_influence(self.folds, metric.function)
            return ModelScore(value, _halve_smoothing(influence), width, len(influence.values) - 1)
        found = ranking_influence(self.folds, RANKING_FUNCTIONS[metric.name], self.class_ids)
        if found is None:
            return None
        reason = IntervalReason.TOO_FEW_IMAGES if found.least < 2 else None
        is_auroc = metric.name == "roc_auc"  # an average precision near 1 needs all of the smoothing
        influence = _halve_smoothing(found.influence) if is_auroc else found.influence
        return ModelScore(found.value, influence, width, found.degrees_of_freedom, reason)

    def _compute_rate(self, name: str) -> ModelScore | None:
        """Computes a rate or the F1 of class 1 against class 0."""
        sample, score = self.sample, class_f1(1) if name == "f1" else class_rate(name, 1)
        at_prevalence = self.prevalence is not None and name in ("ppv", "npv")
        denominators = ["sensitivity", "specificity"] if at_prevalence else [name] if name in RATES else []
        if any(denominator_size(sample, denominator, 1) == 0 for denominator in denominators):
            return None
        needed = [*denominators, name] if at_prevalence else denominators  # a class that is never predicted has no PPV
        reasons = [too_few_in_denominator(sample, denominator, 1) for denominator in needed]
        reason = next((reason for reason in reasons if reason is not None), None)
        if not at_prevalence:
            value = sample.value(lambda matrices: _proportion(score, matrices))
            return ModelScore(value, proportion_influence(sample, score), 1.0, reason=reason, from_counts=True)

        def predictive_value(m: ConfusionMatrices) -> Floats:
            return predictive_values(m.counts, self.prevalence or 0.0)[name]

        value = sample.value(lambda matrices: predictive_value(ConfusionMatrices(matrices)))
        slopes = [numeric_derivatives(ConfusionMatrices(smooth), predictive_value) for smooth in sample.smoothed]
        return ModelScore(value, sample.influence(slopes, sample.smoothed), 1.0, reason=reason, from_counts=True)


def _image_losses(fold: Predictions, name: str) -> Floats:
    """Computes the values of a mean over images (runs, images)."""
    loss = METRICS[name].function
    assert loss is not None, name
    return np.array([loss(run, fold.labels) for run in fold.known_scores])


def _halve_smoothing(influence: Influence) -> Influence:
    """Smooths a difference of two scores half as much as each of them, as `PSEUDO_IMAGES_OF_DIFFERENCE` does."""
    return replace(influence, pseudo_variance=influence.pseudo_variance / 2)


def _proportion(score: Proportions, matrices: Floats) -> Floats:
    numerator, denominator = score.counts(ConfusionMatrices(matrices))
    proportion = safe_divide(numerator, denominator)[..., -1]
    return 2 * proportion / (1 + proportion) if score.f1 else proportion


def estimate_difference(first: ModelScores, second: ModelScores, name: str) -> ScoreDifference | None:
    """Estimates the difference of a score, second model minus first (means over folds and runs); None: it is not
    defined for one of them.

    Args:
        first, second: predictions of the same images in the same order.
        name: of `METRICS`, or of `BINARY_SCORES` for two classes.

    Raises:
        ValueError: If the labels differ.
    """
    require_equal_labels(first.folds, second.folds)
    one, two = first.score(name), second.score(name)
    return None if one is None or two is None else subtract_scores(first, one, second, two)


def subtract_scores(first: ModelScores, one: ModelScore, second: ModelScores, two: ModelScore) -> ScoreDifference:
    """Estimates the difference of a score, second model minus first.

    Args:
        one, two: the score of each model.
    """
    group, difference = first.group, two.value - one.value
    reason = too_few_units(len(one.influence.values), group) or one.reason or two.reason
    influence = Influence(
        two.influence.values - one.influence.values,
        one.influence.information + two.influence.information,
        one.influence.pseudo_variance + two.influence.pseudo_variance,
    )
    if influence.variance == 0:  # no prediction changes the score, such as the one-off accuracy of two grades
        reason = reason or IntervalReason.NOT_ESTIMABLE
    if reason is not None:
        return ScoreDifference(difference, np.nan, np.nan, one.width, reason)
    df = min(one.degrees_of_freedom, two.degrees_of_freedom)
    if one.from_counts:
        smallest = np.minimum(first.smallest_class, second.smallest_class)
        correction = (1 + (1 - 1 / first.sample.num_classes) / np.maximum(smallest - 1, 1)) ** 0.5
        influence = replace(influence, values=influence.values * correction)  # for the fitted rates of small classes
        by_class = np.bincount(first.stratum, influence.values**2, len(first.stratum_size))
        spread = float((by_class**2 / np.maximum(first.stratum_size - 1, 1)).sum())
        df = influence.variance**2 / max(spread, 1e-300)
    design = influence.design(group)
    variance = influence.variance * design.factor
    trials = max(one.width**2 - difference**2, 0.0) / variance
    df = max(min(design.degrees_of_freedom, df, trials - 1), 2.0)
    return ScoreDifference(difference, variance, df, one.width)


# Tests at a margin


class TestableDifference(Protocol):
    """A difference with one-sided tests."""

    def p_value_above(self, limit: float) -> float | None:
        """Computes the p value of the hypothesis that the difference is at most `limit`."""


@dataclass(frozen=True)
class Margin:
    """Greatest difference of a score that does not matter.

    Args:
        kind: `non_inferiority`: the second model is not worse by more than the margin; `equivalence`: neither is.
        score: of `METRICS`, or of `BINARY_SCORES` for positive classes.
        margin: in the unit of the score (0.02: two percentage points).
    """

    kind: str
    score: str
    margin: float

    @classmethod
    def parse(cls, kind: str, text: str) -> "Margin":
        """Parses `SCORE=MARGIN`.

        Raises:
            CommandLineError: If the score is unknown, or the margin is not a positive number.
        """
        score, _, value = text.strip().partition("=")
        try:
            margin = float(value)
        except ValueError:
            margin = float("nan")
        if score not in MARGIN_SCORES or not 0 < margin < np.inf:
            code = EvaluationMessage.INVALID_MARGIN
            raise CommandLineError(code, flag=kind, text=text, scores=list(MARGIN_SCORES))
        return cls(kind, score, margin)

    @property
    def level(self) -> float:
        """One-sided level of the test: 2.5 % for non-inferiority (ICH E9), 5 % for equivalence (Schuirmann, 1987)."""
        return 0.025 if self.kind == "non_inferiority" else 0.05

    def test(self, difference: TestableDifference) -> float | None:
        """Computes the p value of the hypothesis that the second model is worse than the first by the margin or more;
        for equivalence, the larger p value of two one-sided tests; None with a `reason`."""
        above, below = difference.p_value_above(-self.margin), difference.p_value_above(self.margin)
        if above is None or below is None:
            return None
        if self.kind == "equivalence":
            return max(above, 1 - below)
        greater_is_better = self.score in BINARY_SCORES or METRICS[self.score].greater_is_better
        return above if greater_is_better else 1 - below


def require_equal_labels(first: Sequence[Predictions], second: Sequence[Predictions]) -> None:
    """Raises a ValueError if the labels of two models differ (predictions by fold)."""
    for fold, other_fold in zip(first, second, strict=True):
        if not np.array_equal(fold.labels, other_fold.labels):
            raise ValueError("The labels of the two models differ.")
