"""Positive against negative: what a grouping of classes comes to at operating points, by patient, and as net benefit.

An operating point is a threshold on the summed score of the positive classes. It is chosen on one split and applied to
another as it is, so that sensitivity and specificity there are what a reader may expect elsewhere.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from ..errors import UsageError
from .confusion import Floats, headline_metrics, per_class_prf, safe_divide
from .intervals import (
    RATES,
    Estimate,
    Interval,
    Rate,
    difference_interval,
    estimate_rates_by_class,
    jackknife_interval,
    jackknife_replicates,
)
from .prediction_table import Predictions, clusters_from_predictions, image_level_clusters
from .probability_metrics import jackknife_binary_auroc

THRESHOLDS = np.arange(1, 100) / 100  # of the decision curve
THRESHOLD_RULES = ("sensitivity", "specificity", "threshold", "youden")
PATIENT_AGGREGATIONS = ("mean", "worst")  # how a patient's images become one score


@dataclass(frozen=True)
class ThresholdRule:
    """How a threshold is chosen: for at least this sensitivity or specificity, as it is, or by Youden's index."""

    kind: str
    target: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "ThresholdRule":
        """`sensitivity=0.95`, `specificity=0.9`, `threshold=0.5` or `youden`.

        Raises:
            UsageError: it is none of these.
        """
        kind, _, value = text.strip().partition("=")
        try:
            target = float(value) if kind != "youden" else float(value or 0)
        except ValueError:
            target = float("nan")
        if kind not in THRESHOLD_RULES or not 0 <= target <= 1:
            raise UsageError(
                f"an operating point is sensitivity=0.95, specificity=0.9, threshold=0.5 (each between 0 and 1) or "
                f"youden, not {text}."
            )
        return cls(kind, target)

    def __str__(self) -> str:
        return self.kind if self.kind == "youden" else f"{self.kind}={self.target:g}"

    @property
    def is_data_driven(self) -> bool:
        """Whether it has to be looked for."""
        return self.kind != "threshold"

    def choose_threshold(self, scores: Floats, is_positive: NDArray[np.bool_]) -> float:
        """The threshold, from which on a score is positive.

        Of sensitivity: the highest that reaches it; of specificity: the lowest.

        Args:
            scores: (images,).
            is_positive: which images are (images,).

        Raises:
            UsageError: all images are positive, or none is.
        """
        if not self.is_data_driven:
            return self.target
        if is_positive.all() or not is_positive.any():
            raise UsageError(
                f"No threshold can be chosen for {self}: of {len(is_positive)} images there {is_positive.sum()} are positive."
            )
        above = np.unique(scores)
        sensitivity = _fraction_at_least(scores[is_positive], above)
        specificity = 1 - _fraction_at_least(scores[~is_positive], above)
        if self.kind == "sensitivity":
            return float(above[sensitivity >= self.target - 1e-12].max())
        if self.kind == "specificity":
            enough = above[specificity >= self.target - 1e-12]
            return float(enough.min()) if len(enough) else float("inf")
        return float(above[(sensitivity + specificity).argmax()])


def _fraction_at_least(scores: Floats, thresholds: Floats) -> Floats:
    """The share of scores that are at least each threshold."""
    return 1 - np.searchsorted(np.sort(scores), thresholds, side="left") / len(scores)


@dataclass(frozen=True)
class OneVsRest:
    """Predictions of a grouping of classes: folds of images that are positive or not, with their scores.

    Args:
        folds: with two classes, of which 1 is positive; `predicted` is whether the predicted class is positive.
    """

    folds: list[Predictions]

    @classmethod
    def from_predictions(cls, folds: list[Predictions], positive_ids: list[int]) -> "OneVsRest":
        """From predictions of all classes.

        Args:
            positive_ids: ids of the positive classes.
        """
        return cls([_to_binary(fold, positive_ids) for fold in folds])

    def aggregate_by_patient(self, aggregation: str) -> "OneVsRest":
        """One score for each patient or video: the mean of its images', or the `worst` (highest); it is positive where
        any of its images is."""
        return OneVsRest([_aggregate_patients(fold, aggregation) for fold in self.folds])

    @property
    def has_patients(self) -> bool:
        """Whether there are groups."""
        return all(fold.groups is not None for fold in self.folds)

    def choose_thresholds(self, rule: ThresholdRule) -> list[list[float]]:
        """Those that a rule chooses on these images, of each fold and run."""
        return [
            [rule.choose_threshold(scores, fold.labels == 1) for scores in _positive_scores(fold)]
            for fold in self.folds
        ]

    def apply_thresholds(self, thresholds: list[list[float]]) -> list[Predictions]:
        """Predictions at thresholds of each fold and run."""
        return [
            Predictions(
                fold.labels,
                np.array([scores >= value for scores, value in zip(_positive_scores(fold), own)]).astype(int),
                2,
                fold.groups,
            )
            for fold, own in zip(self.folds, thresholds)
        ]

    @property
    def prevalence(self) -> float:
        """The share of positive images, a mean over folds."""
        return float(np.mean([fold.labels.mean() for fold in self.folds]))

    @cached_property
    def _clusters(self) -> tuple[Any, list[NDArray[np.int64]]]:
        return image_level_clusters(self.folds)

    def auroc(self) -> Estimate | None:
        """The area under the ROC curve; None where all images are positive, or none is."""
        units, places = self._clusters
        value, change, weight = 0.0, np.zeros(len(units.counts)), 1.0 / len(self.folds)
        for fold, place, members in zip(self.folds, places, units.members):
            found = [
                jackknife_binary_auroc(run, fold.labels == 1, place, len(members)) for run in _positive_scores(fold)
            ]
            mean = float(np.mean([part[0] for part in found]))
            value += weight * mean
            change[members] += weight * (np.mean([part[1] for part in found], axis=0) - mean)
        return Estimate(value, jackknife_interval(value, value + change, units)) if np.isfinite(value) else None

    def average_precision(self) -> float:
        """scikit-learn's, a mean over folds and runs."""
        found = [average_precision_score(fold.labels, run) for fold in self.folds for run in _positive_scores(fold)]
        return float(np.mean(found))

    def estimate_agreement(self) -> dict[str, Estimate]:
        """`accuracy`, `F1` of the positive side and Cohen's `kappa`, by the predicted class."""
        units = clusters_from_predictions(self.folds)
        value, without = jackknife_replicates(units, _agreement_metrics)
        lowest = {"kappa": -1.0}
        return {
            name: Estimate(value[name], jackknife_interval(value[name], without[name], units, lowest.get(name, 0.0)))
            for name in value
        }

    def decision_curve(self) -> "DecisionCurve":
        """The decision curve (Vickers and Elkin, 2006): at a threshold p, the share of true positives less that of
        false positives times p / (1 - p)."""
        units, places = self._clusters
        odds, weight = THRESHOLDS / (1 - THRESHOLDS), 1.0 / len(self.folds)
        value, change = np.zeros(len(THRESHOLDS)), np.zeros((len(units.counts), len(THRESHOLDS)))
        for fold, place, members in zip(self.folds, places, units.members):
            worth = np.where((fold.labels == 1)[:, None], 1.0, -odds)  # of calling it positive
            gains = np.mean([(run[:, None] >= THRESHOLDS) * worth for run in _positive_scores(fold)], axis=0)
            sums = np.zeros((len(members), len(THRESHOLDS)))
            np.add.at(sums, place, gains)
            sizes, count = np.bincount(place, minlength=len(members))[:, None], len(fold.labels)
            mean = gains.mean(0)
            with np.errstate(invalid="ignore"):
                without = (count * mean - sums) / (count - sizes)
            value += weight * mean
            change[members] += weight * (without - mean)
        ends = [difference_interval(v, v + c, units) for v, c in zip(value.tolist(), change.T)]
        share = self.prevalence
        return DecisionCurve(THRESHOLDS.tolist(), value.tolist(), ends, (share - (1 - share) * odds).tolist())


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit at thresholds, per image.

    Args:
        intervals: 95 %; None: there are too few units.
        treat_all: of calling every image positive; of calling none it is 0.
    """

    thresholds: list[float]
    net_benefit: list[float]
    intervals: list[Interval]
    treat_all: list[float]


def _positive_scores(predictions: Predictions) -> Floats:
    """(runs, images)."""
    assert predictions.class_scores is not None, "a grouping has scores"
    return predictions.class_scores[..., 1]


def _to_binary(predictions: Predictions, positive_ids: list[int]) -> Predictions:
    if predictions.class_scores is None:
        raise ValueError("These predictions have no scores of the classes.")
    scores = predictions.class_scores[..., positive_ids].sum(-1)
    return Predictions(
        np.isin(predictions.labels, positive_ids).astype(int),
        np.isin(predictions.predicted, positive_ids).astype(int),
        2,
        predictions.groups,
        np.stack([1 - scores, scores], axis=-1),
    )


def _aggregate_patients(predictions: Predictions, aggregation: str) -> Predictions:
    assert predictions.groups is not None, "patients are known"
    names, place = np.unique(predictions.groups, return_inverse=True)
    place, labels = place.ravel(), np.zeros(len(names), dtype=int)
    np.maximum.at(labels, place, predictions.labels)
    scores = np.zeros((len(predictions.predicted), len(names)))
    predicted = np.zeros((len(predictions.predicted), len(names)), dtype=int)
    for run, own in enumerate(_positive_scores(predictions)):
        if aggregation == "mean":
            scores[run] = np.bincount(place, own) / np.bincount(place)
        else:
            np.maximum.at(scores[run], place, own)
        np.maximum.at(predicted[run], place, predictions.predicted[run])
    return Predictions(labels, predicted, 2, names, np.stack([1 - scores, scores], axis=-1))


def estimate_binary_rates(folds: list[Predictions], prevalence: float | None = None) -> dict[str, Rate]:
    """Sensitivity, specificity, PPV and NPV of two classes, of which 1 is positive.

    Args:
        folds: of `OneVsRest.at`, or its `folds` (then by the predicted class).
        prevalence: that PPV and NPV are at; None: that of these images.
    """
    found = estimate_rates_by_class(folds)[1]
    if prevalence is None or not {"sensitivity", "specificity"} <= set(found):
        return found
    units = clusters_from_predictions(folds)
    value, without = jackknife_replicates(units, lambda matrices: _predictive_values(matrices, prevalence))
    worth = min(found["sensitivity"].n_eff, found["specificity"].n_eff)
    for name in ("ppv", "npv"):
        found[name] = Rate(value[name], worth, jackknife_interval(value[name], without[name], units))
    return {name: found[name] for name in RATES}


def _agreement_metrics(matrices: Floats) -> dict[str, Floats]:
    found = headline_metrics(matrices, ordered=True)  # of two classes the weighted kappa is Cohen's
    return {"accuracy": found["accuracy"], "F1": per_class_prf(matrices)["f1"][..., 1], "kappa": found["qwk"]}


def _predictive_values(matrices: Floats, prevalence: float) -> dict[str, Floats]:
    """Bayes' rule on sensitivity and specificity, of matrices (..., 2, 2)."""
    sensitivity = safe_divide(matrices[..., 1, 1], matrices[..., 1, :].sum(-1))
    specificity = safe_divide(matrices[..., 0, 0], matrices[..., 0, :].sum(-1))
    right, wrong = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    missed, cleared = (1 - sensitivity) * prevalence, specificity * (1 - prevalence)
    return {"ppv": safe_divide(right, right + wrong), "npv": safe_divide(cleared, cleared + missed)}
