"""Binary evaluation, positive classes against the rest: operating points, metrics per patient, and decision curves.

An operating point is a threshold on the summed score of the positive classes. It is chosen on one split and applied to
another one unchanged, so sensitivity and specificity on that split estimate those on new data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from ..errors import CommandLineError, UsageError, did_you_mean
from .intervals import (
    RATES,
    Estimate,
    Interval,
    Rate,
    difference_interval,
    estimate_rates_by_class,
    jackknife_interval,
    jackknife_mean,
    jackknife_replicates,
)
from .messages import EvaluationMessage
from .metrics import ConfusionMatrices, Floats, headline_metrics, safe_divide
from .prediction_table import Clusters, Predictions, clusters_from_predictions, image_level_clusters
from .probability_metrics import jackknife_auroc

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
    """Computes the fraction of the scores that are at least each threshold."""
    return 1 - np.searchsorted(np.sort(scores), thresholds, side="left") / len(scores)


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

    def choose_thresholds(self, rule: ThresholdRule) -> list[list[float]]:
        """Chooses the threshold of each fold and run on these images."""
        return [
            [rule.choose_threshold(scores, fold.labels == 1) for scores in _positive_scores(fold)]
            for fold in self.folds
        ]

    def apply_thresholds(self, thresholds: list[list[float]]) -> list[Predictions]:
        """Returns the predictions at the thresholds of each fold and run."""
        return [
            Predictions(
                fold.labels,
                np.array([scores >= value for scores, value in zip(_positive_scores(fold), values)]).astype(int),
                2,
                fold.groups,
            )
            for fold, values in zip(self.folds, thresholds)
        ]

    @property
    def prevalence(self) -> float:
        """Fraction of positive images, as a mean over folds."""
        return float(np.mean([fold.labels.mean() for fold in self.folds]))

    @cached_property
    def _clusters(self) -> Clusters:
        return image_level_clusters(self.folds)

    def auroc(self) -> Estimate | None:
        """Computes the area under the ROC curve; None if all images are positive, or none is."""
        value, replicates = jackknife_auroc(self.folds, self._clusters, [1])
        return Estimate(value, jackknife_interval(value, replicates, self._clusters)) if np.isfinite(value) else None

    def average_precision(self) -> float:
        """Computes the average precision (scikit-learn's), as a mean over folds and runs."""
        values = [average_precision_score(fold.labels, run) for fold in self.folds for run in _positive_scores(fold)]
        return float(np.mean(values))

    def estimate_agreement(self) -> dict[str, Estimate]:
        """Estimates `accuracy`, `F1` of the positive class and Cohen's `kappa`, of the predicted classes."""
        clusters = clusters_from_predictions(self.folds)
        values, replicates = jackknife_replicates(clusters, _agreement_metrics)
        lower_bounds = {"kappa": -1.0}
        return {
            name: Estimate(value, jackknife_interval(value, replicates[name], clusters, lower_bounds.get(name, 0.0)))
            for name, value in values.items()
        }

    def decision_curve(self) -> "DecisionCurve":
        """Computes the decision curve (Vickers and Elkin, 2006).

        The net benefit at a threshold p is the fraction of true positives minus p / (1 - p) times the fraction of false
        positives.
        """
        odds = THRESHOLDS / (1 - THRESHOLDS)

        def benefits(fold: Predictions) -> Floats:
            benefit = np.where((fold.labels == 1)[:, None], 1.0, -odds)  # if the image is called positive
            mean: Floats = np.mean([(run[:, None] >= THRESHOLDS) * benefit for run in _positive_scores(fold)], axis=0)
            return mean

        value, replicates = jackknife_mean(self.folds, self._clusters, benefits)
        intervals = [difference_interval(v, r, self._clusters) for v, r in zip(value.tolist(), replicates.T)]
        treat_all = self.prevalence - (1 - self.prevalence) * odds
        return DecisionCurve(THRESHOLDS.tolist(), value.tolist(), intervals, treat_all.tolist())


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit per image at each threshold.

    Args:
        intervals: 95 %; None: too few clusters.
        treat_all: net benefit of calling every image positive; that of calling none positive is 0.
    """

    thresholds: list[float]
    net_benefit: list[float]
    intervals: list[Interval]
    treat_all: list[float]


def _positive_scores(predictions: Predictions) -> Floats:
    """Returns the scores of the positive classes (runs, images)."""
    return predictions.known_scores[..., 1]


def _to_binary(predictions: Predictions, positive_ids: list[int]) -> Predictions:
    scores = predictions.known_scores[..., positive_ids].sum(-1)
    return Predictions(
        np.isin(predictions.labels, positive_ids).astype(int),
        np.isin(predictions.predicted, positive_ids).astype(int),
        2,
        predictions.groups,
        np.stack([1 - scores, scores], axis=-1),
    )


def _aggregate_patients(predictions: Predictions, aggregation: str) -> Predictions:
    assert predictions.groups is not None
    patients, patient_index = np.unique(predictions.groups, return_inverse=True)
    patient_index, labels = patient_index.ravel(), np.zeros(len(patients), dtype=int)
    np.maximum.at(labels, patient_index, predictions.labels)
    scores = np.zeros((len(predictions.predicted), len(patients)))
    predicted = np.zeros((len(predictions.predicted), len(patients)), dtype=int)
    for run, image_scores in enumerate(_positive_scores(predictions)):
        if aggregation == "mean":
            scores[run] = np.bincount(patient_index, image_scores) / np.bincount(patient_index)
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
    rates = estimate_rates_by_class(folds)[1]
    if prevalence is None or not {"sensitivity", "specificity"} <= set(rates):
        return rates
    clusters = clusters_from_predictions(folds)
    values, replicates = jackknife_replicates(clusters, lambda matrices: _predictive_values(matrices, prevalence))
    n_eff = min(rates["sensitivity"].n_eff, rates["specificity"].n_eff)
    for name in ("ppv", "npv"):
        rates[name] = Rate(values[name], n_eff, jackknife_interval(values[name], replicates[name], clusters))
    return {name: rates[name] for name in RATES}


def _agreement_metrics(matrices: Floats) -> dict[str, Floats]:
    metrics = headline_metrics(matrices, ordered=True)  # with two classes the weighted kappa is Cohen's
    return {"accuracy": metrics["accuracy"], "F1": ConfusionMatrices(matrices).f1[..., 1], "kappa": metrics["qwk"]}


def _predictive_values(matrices: Floats, prevalence: float) -> dict[str, Floats]:
    """Computes PPV and NPV from sensitivity and specificity by Bayes' rule, for matrices (..., 2, 2)."""
    sensitivity = safe_divide(matrices[..., 1, 1], matrices[..., 1, :].sum(-1))
    specificity = safe_divide(matrices[..., 0, 0], matrices[..., 0, :].sum(-1))
    true_positive, false_positive = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    false_negative, true_negative = (1 - sensitivity) * prevalence, specificity * (1 - prevalence)
    return {
        "ppv": safe_divide(true_positive, true_positive + false_positive),
        "npv": safe_divide(true_negative, true_negative + false_negative),
    }
