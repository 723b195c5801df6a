"""Binary evaluation, positive classes against the rest: operating points, metrics per patient, and decision curves.

An operating point is a threshold on the summed score of the positive classes. It is chosen on one split and applied to
another one unchanged, so sensitivity and specificity on that split estimate those on new data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import CommandLineError, UsageError, did_you_mean
from .estimation import (
    RATES,
    ProportionFit,
    Rate,
    Sample,
    class_rate,
    estimate_class_f1,
    estimate_rate,
    estimate_score,
    fit_proportions,
    group_ids,
    too_few_units,
)
from .intervals import (
    Estimate,
    Floats,
    Interval,
    design_effect,
    ratio_score_interval,
    t_quantile,
)
from .messages import EvaluationMessage
from .metrics import SCORE_PRECISION, is_at_least, merge_ties, safe_divide
from .prediction_table import Predictions
from .probability_metrics import binary_auroc, binary_average_precision, estimate_ranking
from .recalibration import Recalibration, recalibrate

THRESHOLDS = np.arange(1, 100) / 100  # threshold probabilities of the decision curve
THRESHOLD_RULES = ("sensitivity", "specificity", "threshold", "youden")
PATIENT_AGGREGATIONS = ("mean", "worst")  # of the scores of a patient's images


@dataclass(frozen=True)
class ThresholdRule:
    """Rule that chooses a threshold: a minimum sensitivity or specificity, a fixed threshold, or Youden's index."""

    kind: str
    target: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "ThresholdRule":
        """Parses `sensitivity=0.95`, `specificity=0.9`, `threshold=0.5` or `youden`.

        Raises:
            CommandLineError: If the text is not such a rule.
        """
        kind, _, value = text.strip().partition("=")
        try:
            target = float(value) if kind != "youden" else float(value or 0)
        except ValueError:
            target = float("nan")
        if kind not in THRESHOLD_RULES or not 0 <= target <= 1:
            raise CommandLineError(EvaluationMessage.INVALID_OPERATING_POINT, text=text)
        return cls(kind, target)

    def __str__(self) -> str:
        return self.kind if self.kind == "youden" else f"{self.kind}={self.target:g}"

    @property
    def is_data_driven(self) -> bool:
        """Whether the threshold depends on the images."""
        return self.kind != "threshold"

    def choose_threshold(self, scores: Floats, is_positive: NDArray[np.bool_]) -> float:
        """Chooses the smallest score that counts as positive.

        For a sensitivity this is the highest threshold that reaches it; for a specificity, the lowest.

        Args:
            scores: (images,).
            is_positive: mask of the positive images (images,).

        Raises:
            UsageError: If all images are positive, or none is.
        """
        if not self.is_data_driven:
            return self.target
        if is_positive.all() or not is_positive.any():
            raise UsageError(
                EvaluationMessage.OPERATING_POINT_NEEDS_BOTH_SIDES,
                rule=self,
                positive=is_positive.sum(),
                total=len(is_positive),
            )
        thresholds = np.unique(scores)
        sensitivity = _fraction_at_least(scores[is_positive], thresholds)
        specificity = 1 - _fraction_at_least(scores[~is_positive], thresholds)
        if self.kind == "sensitivity":
            return float(thresholds[sensitivity >= self.target - 1e-12].max())
        if self.kind == "specificity":
            reached = thresholds[specificity >= self.target - 1e-12]
            return float(reached.min()) if len(reached) else float("inf")
        return float(thresholds[(sensitivity + specificity).argmax()])


def _fraction_at_least(scores: Floats, thresholds: Floats) -> Floats:
    """Computes the fraction of the scores that are at least each threshold (`metrics.is_at_least`)."""
    return 1 - np.searchsorted(np.sort(scores), thresholds * (1 - SCORE_PRECISION), side="left") / len(scores)


def find_positive_ids(positive: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """Returns the class ids of positive classes, without repetitions.

    Raises:
        UsageError: If a class is unknown, or all classes are positive.
    """
    for name in positive:
        if name not in class_names:
            suggestion = did_you_mean(name, class_names)
            code = EvaluationMessage.UNKNOWN_POSITIVE_CLASS
            raise UsageError(code, name=name, suggestion=suggestion, names=class_names)
    if set(positive) == set(class_names):
        raise UsageError(EvaluationMessage.ALL_CLASSES_POSITIVE)
    return [class_names.index(name) for name in dict.fromkeys(positive)]


@dataclass(frozen=True)
class OneVsRest:
    """Predictions of positive classes (1) against the rest, by fold; `predicted` is by the predicted class."""

    folds: list[Predictions]

    @classmethod
    def from_predictions(cls, folds: list[Predictions], positive_ids: list[int]) -> "OneVsRest":
        """Converts predictions of all classes to binary predictions."""
        return cls([_to_binary(fold, positive_ids) for fold in folds])

    def aggregate_by_patient(self, aggregation: str) -> "OneVsRest":
        """Aggregates the images of each patient or video to one score: their `mean`, or the `worst` (highest).

        A patient is positive if any of their images is.
        """
        return OneVsRest([_aggregate_patients(fold, aggregation) for fold in self.folds])

    @property
    def has_patients(self) -> bool:
        """Whether all folds have groups."""
        return all(fold.groups is not None for fold in self.folds)

    @property
    def has_scores(self) -> bool:
        """Whether all folds have scores of the classes."""
        return all(fold.class_scores is not None for fold in self.folds)

    def choose_thresholds(self, rule: ThresholdRule) -> list[list[float]]:
        """Chooses the threshold of each fold and run on these images."""
        return [
            [rule.choose_threshold(scores, fold.labels == 1) for scores in positive_scores(fold)] for fold in self.folds
        ]

    def get_thresholds(self, rule: ThresholdRule, others: "OneVsRest | None") -> list[list[float]]:
        """Returns the threshold of each fold and run: the fixed one, or that chosen on other images (their folds, or
        one fold per run)."""
        if others is None:
            return [[rule.target] * len(fold.predicted) for fold in self.folds]
        by_run = iter([value for values in others.choose_thresholds(rule) for value in values])
        return [[next(by_run) for _ in fold.predicted] for fold in self.folds]

    def apply_thresholds(self, thresholds: list[list[float]]) -> list[Predictions]:
        """Returns the predictions at the thresholds of each fold and run."""
        return [
            Predictions(
                fold.labels,
                np.array([is_at_least(*pair) for pair in zip(positive_scores(fold), values)]).astype(int),
                2,
                fold.groups,
            )
            for fold, values in zip(self.folds, thresholds)
        ]

    @property
    def prevalence(self) -> float:
        """Fraction of positive images, as a mean over folds."""
        return float(np.mean([fold.labels.mean() for fold in self.folds]))

    def auroc(self) -> Estimate | None:
        """Estimates the area under the ROC curve; None if all images are positive, or none is."""
        return estimate_ranking(self.folds, binary_auroc, [1])

    def average_precision(self) -> Estimate | None:
        """Estimates the average precision (scikit-learn's); None if all images are positive, or none is."""
        return estimate_ranking(self.folds, binary_average_precision, [1])

    def recalibrate(self) -> Recalibration | None:
        """Estimates the calibration intercept, slope and curve; None if they are infinite or undefined."""
        group = group_ids(self.folds)
        reason = too_few_units(sum(len(fold.labels) for fold in self.folds), group)
        scores = [list(positive_scores(fold)) for fold in self.folds]
        return recalibrate(scores, [fold.labels == 1 for fold in self.folds], group, reason)

    def estimate_agreement(self) -> dict[str, Estimate]:
        """Estimates `accuracy`, `F1` of the positive class and Cohen's `kappa`, of the predicted classes."""
        sample = Sample(self.folds)
        return {
            "accuracy": estimate_score(sample, "accuracy"),
            "F1": estimate_class_f1(self.folds, 1),
            "kappa": estimate_score(sample, "kappa"),
        }

    def decision_curve(self) -> "DecisionCurve":
        """Computes the decision curve (Vickers and Elkin, 2006).

        The net benefit at a threshold p is the fraction of true positives minus p / (1 - p) times the fraction of false
        positives.
        """
        value, intervals = self._mean_benefits([net_benefits(fold) for fold in self.folds])
        _, gain_intervals = self._mean_benefits([net_benefits(fold) - all_benefits(fold) for fold in self.folds])
        treat_all = self.prevalence - (1 - self.prevalence) * THRESHOLDS / (1 - THRESHOLDS)
        return DecisionCurve(THRESHOLDS.tolist(), value, intervals, treat_all.tolist(), gain_intervals)

    def benefit_difference(self, other: "OneVsRest") -> tuple[list[float], list[Interval]]:
        """Computes the net benefit of another model on the same images minus that of this one, and the interval, by
        threshold."""
        pairs = zip(self.folds, other.folds, strict=True)
        return self._mean_benefits([net_benefits(second) - net_benefits(first) for first, second in pairs])

    def _mean_benefits(self, benefits: Sequence[Floats]) -> tuple[list[float], list[Interval]]:
        """Computes means over images and folds with Student's intervals.

        Args:
            benefits: by fold, of each image at each threshold (images, thresholds).
        """
        value, influence, pseudo_variance = np.zeros(len(THRESHOLDS)), [], np.zeros(len(THRESHOLDS))
        odds, count = THRESHOLDS / (1 - THRESHOLDS), len(self.folds)
        for fold in benefits:
            mean, size = fold.mean(0), len(fold)
            value += mean / count
            influence.append((fold - mean) / (size * max(size - 1, 1)) ** 0.5 / count)
            # Half a true positive, and false positives of the same weight, per set of images
            pseudo_variance += (0.5 + 0.5 * np.minimum(odds, 1 / odds) ** 2) / (size * count) ** 2 / count
        return value.tolist(), self._benefit_intervals(value, np.concatenate(influence), pseudo_variance)

    def _benefit_intervals(self, value: Floats, influence: Floats, pseudo_variance: Floats) -> list[Interval]:
        """Computes Student's intervals of means over images, by threshold."""
        group = group_ids(self.folds)
        if too_few_units(len(influence), group) is not None:
            return [None] * len(value)
        intervals: list[Interval] = []
        for mean, column, added in zip(value.tolist(), influence.T, pseudo_variance.tolist()):
            variance, df = float((column**2).sum()) + added, len(column) - 1.0
            if group is not None:
                design = design_effect(column, np.ones(len(column)), group, added)
                variance, df = variance * design.factor, design.degrees_of_freedom
            margin = t_quantile(df) * variance**0.5
            intervals.append((mean - margin, mean + margin))
        return intervals


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit per image at each threshold.

    Args:
        intervals: 95 %; None: too few clusters.
        treat_all: net benefit of calling every image positive; that of calling none positive is 0.
        gain_intervals: 95 % intervals of the net benefit minus that of calling every image positive.
    """

    thresholds: list[float]
    net_benefit: list[float]
    intervals: list[Interval]
    treat_all: list[float]
    gain_intervals: list[Interval]


def all_benefits(predictions: Predictions) -> Floats:
    """Computes the net benefit of calling each image positive at each threshold (images, thresholds)."""
    benefits: Floats = np.where((predictions.labels == 1)[:, None], 1.0, -THRESHOLDS / (1 - THRESHOLDS))
    return benefits


def net_benefits(predictions: Predictions) -> Floats:
    """Computes the net benefit of each image at each threshold, as a mean over runs (images, thresholds)."""
    called = np.mean([is_at_least(run[:, None], THRESHOLDS) for run in positive_scores(predictions)], axis=0)
    benefits: Floats = called * all_benefits(predictions)
    return benefits


def positive_scores(predictions: Predictions) -> Floats:
    """Returns the scores of the positive classes (runs, images); those that differ by rounding errors are equal."""
    return np.array([merge_ties(scores) for scores in predictions.known_scores[..., 1]])


def _to_binary(predictions: Predictions, positive_ids: list[int]) -> Predictions:
    scores = None if predictions.class_scores is None else predictions.class_scores[..., positive_ids].sum(-1)
    return Predictions(
        np.isin(predictions.labels, positive_ids).astype(int),
        np.isin(predictions.predicted, positive_ids).astype(int),
        2,
        predictions.groups,
        None if scores is None else np.stack([1 - scores, scores], axis=-1),
    )


def _aggregate_patients(predictions: Predictions, aggregation: str) -> Predictions:
    assert predictions.groups is not None
    patients, patient_index = np.unique(predictions.groups, return_inverse=True)
    patient_index, labels = patient_index.ravel(), np.zeros(len(patients), dtype=int)
    np.maximum.at(labels, patient_index, predictions.labels)
    scores = np.zeros((len(predictions.predicted), len(patients)))
    predicted = np.zeros((len(predictions.predicted), len(patients)), dtype=int)
    for run, image_scores in enumerate(positive_scores(predictions)):
        if aggregation == "mean":
            order = np.argsort(image_scores)  # a sum depends on the order of its terms
            scores[run] = np.bincount(patient_index[order], image_scores[order]) / np.bincount(patient_index)
        else:
            np.maximum.at(scores[run], patient_index, image_scores)
        np.maximum.at(predicted[run], patient_index, predictions.predicted[run])
    return Predictions(labels, predicted, 2, patients, np.stack([1 - scores, scores], axis=-1))


def estimate_binary_rates(folds: list[Predictions], prevalence: float | None = None) -> dict[str, Rate]:
    """Estimates the sensitivity, specificity, PPV and NPV of two classes, with 1 as the positive one.

    Args:
        folds: from `OneVsRest.apply_thresholds`, or `OneVsRest.folds` (the predicted classes).
        prevalence: prevalence for PPV and NPV; None: that of these images.
    """
    sample = Sample(folds)
    rates = {name: rate for name in RATES if (rate := estimate_rate(sample, name, 1)) is not None}
    if prevalence is None or not {"sensitivity", "specificity"} <= set(rates):
        return rates
    sensitivity, specificity = rates["sensitivity"], rates["specificity"]
    n_eff, reason = min(sensitivity.n_eff, specificity.n_eff), sensitivity.reason or specificity.reason
    fits = {name: fit_proportions(sample, class_rate(name, 1)) for name in ("sensitivity", "specificity")}
    for name in ("ppv", "npv"):
        value = sample.value(lambda matrices: predictive_values(matrices, prevalence)[name])  # noqa: B023
        interval = (
            None if reason else _predictive_value_interval(name, fits["sensitivity"], fits["specificity"], prevalence)
        )
        if interval is not None:
            interval = min(interval[0], value), max(interval[1], value)
        rates[name] = Rate(value, n_eff, interval, reason)
    return {name: rates[name] for name in RATES}


def effective_trials(fit: ProportionFit) -> float:
    """Computes the effective number of images of a proportion: with their independent errors, it has this variance."""
    return 1 / (fit.design * float((fit.weights**2 / np.maximum(fit.trials, 1)).sum()))


def _predictive_value_interval(
    name: str, sensitivity: ProportionFit, specificity: ProportionFit, prevalence: float
) -> Interval:
    """Computes the interval of PPV or NPV at a prevalence from that of the likelihood ratio, a ratio of proportions."""
    rates = [float((fit.weights * fit.proportions).sum()) for fit in (sensitivity, specificity)]
    trials = [effective_trials(fit) for fit in (sensitivity, specificity)]
    quantile = max(sensitivity.quantile, specificity.quantile)
    if name == "ppv":
        ratios = ratio_score_interval(rates[0], trials[0], 1 - rates[1], trials[1], quantile)
        prior = prevalence / max(1 - prevalence, 1e-12)
    else:
        ratios = ratio_score_interval(rates[1], trials[1], 1 - rates[0], trials[0], quantile)
        prior = (1 - prevalence) / max(prevalence, 1e-12)
    low, high = (1.0 if np.isinf(ratio) else prior * ratio / (1 + prior * ratio) for ratio in ratios)
    return low, high


def predictive_values(matrices: Floats, prevalence: float) -> dict[str, Floats]:
    """Computes PPV and NPV from sensitivity and specificity by Bayes' rule, for matrices (..., 2, 2)."""
    sensitivity = safe_divide(matrices[..., 1, 1], matrices[..., 1, :].sum(-1))
    specificity = safe_divide(matrices[..., 0, 0], matrices[..., 0, :].sum(-1))
    true_positive, false_positive = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    false_negative, true_negative = (1 - sensitivity) * prevalence, specificity * (1 - prevalence)
    return {
        "ppv": safe_divide(true_positive, true_positive + false_positive),
        "npv": safe_divide(true_negative, true_negative + false_negative),
    }
