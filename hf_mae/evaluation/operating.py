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
from .confusion import Floats, by_class, ratio, scores_of
from .intervals import RATES, Estimate, Interval, Rate, difference_interval, interval, left_out, rates_by_class
from .probabilities import area_without
from .statistics import Predictions, units_of, units_of_images

THRESHOLDS = np.arange(1, 100) / 100  # of the decision curve
RULES = ("sensitivity", "specificity", "threshold", "youden")
WAYS = ("mean", "worst")  # how a patient's images become one score


@dataclass(frozen=True)
class Rule:
    """How a threshold is chosen: for at least this sensitivity or specificity, as it is, or by Youden's index."""

    kind: str
    target: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """`sensitivity=0.95`, `specificity=0.9`, `threshold=0.5` or `youden`.

        Raises:
            UsageError: it is none of these.
        """
        kind, _, value = text.strip().partition("=")
        try:
            target = float(value) if kind != "youden" else float(value or 0)
        except ValueError:
            target = float("nan")
        if kind not in RULES or not 0 <= target <= 1:
            raise UsageError(
                f"an operating point is sensitivity=0.95, specificity=0.9, threshold=0.5 (each between 0 and 1) or "
                f"youden, not {text}."
            )
        return cls(kind, target)

    def __str__(self) -> str:
        return self.kind if self.kind == "youden" else f"{self.kind}={self.target:g}"

    @property
    def needs_images(self) -> bool:
        """Whether it has to be looked for."""
        return self.kind != "threshold"

    def choose(self, scores: Floats, positive: NDArray[np.bool_]) -> float:
        """The threshold, from which on a score is positive.

        Of sensitivity: the highest that reaches it; of specificity: the lowest.

        Args:
            scores: (images,).
            positive: which images are (images,).

        Raises:
            UsageError: all images are positive, or none is.
        """
        if not self.needs_images:
            return self.target
        if positive.all() or not positive.any():
            raise UsageError(
                f"No threshold can be chosen for {self}: of {len(positive)} images there {positive.sum()} are positive."
            )
        above = np.unique(scores)
        sensitivity = _share_from(scores[positive], above)
        specificity = 1 - _share_from(scores[~positive], above)
        if self.kind == "sensitivity":
            return float(above[sensitivity >= self.target - 1e-12].max())
        if self.kind == "specificity":
            enough = above[specificity >= self.target - 1e-12]
            return float(enough.min()) if len(enough) else float("inf")
        return float(above[(sensitivity + specificity).argmax()])


def _share_from(scores: Floats, thresholds: Floats) -> Floats:
    """The share of scores that are at least each threshold."""
    return 1 - np.searchsorted(np.sort(scores), thresholds, side="left") / len(scores)


@dataclass(frozen=True)
class Sided:
    """Predictions of a grouping of classes: folds of images that are positive or not, with their scores.

    Args:
        folds: with two classes, of which 1 is positive; `predicted` is whether the predicted class is positive.
    """

    folds: list[Predictions]

    @classmethod
    def of(cls, folds: list[Predictions], positive: list[int]) -> "Sided":
        """From predictions of all classes.

        Args:
            positive: ids of the positive classes.
        """
        return cls([_sided(fold, positive) for fold in folds])

    def by_patient(self, way: str) -> "Sided":
        """One score for each patient or video: the mean of its images', or the `worst` (highest); it is positive where
        any of its images is."""
        return Sided([_by_patient(fold, way) for fold in self.folds])

    @property
    def knows_patients(self) -> bool:
        """Whether there are groups."""
        return all(fold.groups is not None for fold in self.folds)

    def thresholds(self, rule: Rule) -> list[list[float]]:
        """Those that a rule chooses on these images, of each fold and run."""
        return [[rule.choose(scores, fold.labels == 1) for scores in _positive_scores(fold)] for fold in self.folds]

    def at(self, thresholds: list[list[float]]) -> list[Predictions]:
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
    def _units(self) -> tuple[Any, list[NDArray[np.int64]]]:
        return units_of_images(self.folds)

    def area(self) -> Estimate | None:
        """The area under the ROC curve; None where all images are positive, or none is."""
        units, places = self._units
        value, change, weight = 0.0, np.zeros(len(units.times)), 1.0 / len(self.folds)
        for fold, place, members in zip(self.folds, places, units.members):
            found = [area_without(run, fold.labels == 1, place, len(members)) for run in _positive_scores(fold)]
            mean = float(np.mean([part[0] for part in found]))
            value += weight * mean
            change[members] += weight * (np.mean([part[1] for part in found], axis=0) - mean)
        return Estimate(value, interval(value, value + change, units)) if np.isfinite(value) else None

    def average_precision(self) -> float:
        """scikit-learn's, a mean over folds and runs."""
        found = [average_precision_score(fold.labels, run) for fold in self.folds for run in _positive_scores(fold)]
        return float(np.mean(found))

    def agreement(self) -> dict[str, Estimate]:
        """`accuracy`, `F1` of the positive side and Cohen's `kappa`, by the predicted class."""
        units = units_of(self.folds)
        value, without = left_out(units, _agreement)
        lowest = {"kappa": -1.0}
        return {
            name: Estimate(value[name], interval(value[name], without[name], units, lowest.get(name, 0.0)))
            for name in value
        }

    def net_benefit(self) -> "DecisionCurve":
        """The decision curve (Vickers and Elkin, 2006): at a threshold p, the share of true positives less that of
        false positives times p / (1 - p)."""
        units, places = self._units
        odds, weight = THRESHOLDS / (1 - THRESHOLDS), 1.0 / len(self.folds)
        value, change = np.zeros(len(THRESHOLDS)), np.zeros((len(units.times), len(THRESHOLDS)))
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


def _positive_scores(fold: Predictions) -> Floats:
    """(runs, images)."""
    assert fold.class_scores is not None, "a grouping has scores"
    return fold.class_scores[..., 1]


def _sided(fold: Predictions, positive: list[int]) -> Predictions:
    if fold.class_scores is None:
        raise ValueError("These predictions have no scores of the classes.")
    scores = fold.class_scores[..., positive].sum(-1)
    return Predictions(
        np.isin(fold.labels, positive).astype(int),
        np.isin(fold.predicted, positive).astype(int),
        2,
        fold.groups,
        np.stack([1 - scores, scores], axis=-1),
    )


def _by_patient(fold: Predictions, way: str) -> Predictions:
    assert fold.groups is not None, "patients are known"
    names, place = np.unique(fold.groups, return_inverse=True)
    place, labels = place.ravel(), np.zeros(len(names), dtype=int)
    np.maximum.at(labels, place, fold.labels)
    scores = np.zeros((len(fold.predicted), len(names)))
    predicted = np.zeros((len(fold.predicted), len(names)), dtype=int)
    for run, own in enumerate(_positive_scores(fold)):
        if way == "mean":
            scores[run] = np.bincount(place, own) / np.bincount(place)
        else:
            np.maximum.at(scores[run], place, own)
        np.maximum.at(predicted[run], place, fold.predicted[run])
    return Predictions(labels, predicted, 2, names, np.stack([1 - scores, scores], axis=-1))


def rates_at(folds: list[Predictions], prevalence: float | None = None) -> dict[str, Rate]:
    """Sensitivity, specificity, PPV and NPV of two classes, of which 1 is positive.

    Args:
        folds: of `Sided.at`, or its `folds` (then by the predicted class).
        prevalence: that PPV and NPV are at; None: that of these images.
    """
    found = rates_by_class(folds)[1]
    if prevalence is None or not {"sensitivity", "specificity"} <= set(found):
        return found
    units = units_of(folds)
    value, without = left_out(units, lambda matrices: _at_prevalence(matrices, prevalence))
    worth = min(found["sensitivity"].worth, found["specificity"].worth)
    for name in ("ppv", "npv"):
        found[name] = Rate(value[name], worth, interval(value[name], without[name], units))
    return {name: found[name] for name in RATES}


def _agreement(matrices: Floats) -> dict[str, Floats]:
    found = scores_of(matrices, ordered=True)  # of two classes the weighted kappa is Cohen's
    return {"accuracy": found["accuracy"], "F1": by_class(matrices)["f1"][..., 1], "kappa": found["qwk"]}


def _at_prevalence(matrices: Floats, prevalence: float) -> dict[str, Floats]:
    """Bayes' rule on sensitivity and specificity, of matrices (..., 2, 2)."""
    sensitivity = ratio(matrices[..., 1, 1], matrices[..., 1, :].sum(-1))
    specificity = ratio(matrices[..., 0, 0], matrices[..., 0, :].sum(-1))
    right, wrong = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    missed, cleared = (1 - sensitivity) * prevalence, specificity * (1 - prevalence)
    return {"ppv": ratio(right, right + wrong), "npv": ratio(cleared, cleared + missed)}
