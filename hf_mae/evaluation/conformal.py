"""Split conformal prediction: sets of classes that contain the true class with a given probability."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from .metrics import SCORE_PRECISION, softmax


@dataclass(frozen=True)
class ConformalSets:
    """Label-conditional (Mondrian) conformal prediction sets (Vovk, 2012; Sadinle et al., 2019).

    The set of an image contains each class whose score is not among the lowest of the calibration images of that class.
    If an image is exchangeable with the calibration images of its class, its set contains its class with the requested
    probability, for every class and however poor the scores are.

    If patients or videos are known, they are exchangeable, not their images: each patient of a class has the weight 1,
    shared by the patient's images of the class (Lee, Barber and Willett, 2023, Distribution-free inference with
    hierarchical data). The weight of the new image is between 1 / images of a patient (if the scores of a patient are
    independent) and 1 (if they are equal), by the intraclass correlation of the ranks of the scores.

    Args:
        calibration_scores: per class, the sorted scores that its calibration images give to it.
        weights: per class, the weights of these scores; None: 1 each.
        new_weights: per class, the weight of a new image; None: 1 each.
    """

    calibration_scores: list[np.ndarray]
    weights: list[np.ndarray] | None = None
    new_weights: list[float] | None = None

    @classmethod
    def fit(cls, class_scores: np.ndarray, labels: np.ndarray, groups: Sequence[Any] | None = None) -> "ConformalSets":
        """Calibrates on scores (images, classes), class ids (images,) and, if known, patients or videos (images,)."""
        true_scores = class_scores[np.arange(len(labels)), labels]
        by_class = [np.flatnonzero(labels == index) for index in range(class_scores.shape[1])]
        by_class = [images[np.argsort(true_scores[images], kind="stable")] for images in by_class]
        scores = [true_scores[images] for images in by_class]
        if groups is None:
            return cls(scores)
        ids = np.unique(np.asarray(groups).astype(str), return_inverse=True)[1].ravel()
        weighted = [_patient_weights(own, ids[images]) for own, images in zip(scores, by_class)]
        return cls(scores, [weights for weights, _ in weighted], [new for _, new in weighted])

    def _class_weights(self) -> list[tuple[np.ndarray, float]]:
        """Returns the cumulative weights of each class, from 0, and the weight of a new image."""
        weights = self.weights or [np.ones(len(scores)) for scores in self.calibration_scores]
        new_weights = self.new_weights or [1.0] * len(weights)
        return [(np.r_[0.0, np.cumsum(own)], new) for own, new in zip(weights, new_weights, strict=True)]

    def p_values(self, class_scores: np.ndarray) -> np.ndarray:
        """Computes p values (images, classes): fraction of the weights of the calibration images of the class, and of
        this image, with no higher score."""
        columns = [
            (total[np.searchsorted(calibration, column * (1 + SCORE_PRECISION), side="right")] + new)
            / (total[-1] + new)
            for calibration, (total, new), column in zip(
                self.calibration_scores, self._class_weights(), class_scores.T, strict=True
            )
        ]
        return np.stack(columns, axis=1)

    def predict_sets(self, class_scores: np.ndarray, level: float) -> np.ndarray:
        """Computes whether each class is in the set of each image (images, classes), at a level such as 0.9."""
        return self.p_values(class_scores) > 1 - level + 1e-12

    def uninformative_classes(self, level: float) -> list[int]:
        """Returns the classes that every set contains because they have too few calibration images."""
        weights = enumerate(self._class_weights())
        return [index for index, (total, new) in weights if new / (total[-1] + new) > 1 - level + 1e-12]


def _patient_weights(scores: np.ndarray, ids: NDArray[np.int64]) -> tuple[np.ndarray, float]:
    """Computes the weights of the images (images,) of a class, and that of a new image.

    Args:
        ids: patient or video of each image (images,).
    """
    if not len(ids):
        return np.ones(0), 1.0
    patient = np.unique(ids, return_inverse=True)[1].ravel()
    sizes = np.bincount(patient).astype(float)
    correlation = _intraclass_correlation(rankdata(scores), patient, sizes)
    return 1 / sizes[patient], float(((1 + (sizes - 1) * correlation) / sizes).mean())


def _intraclass_correlation(values: np.ndarray, patient: NDArray[np.int64], sizes: np.ndarray) -> float:
    """Computes the intraclass correlation of one-way analysis of variance, from 0 to 1; 1 if it is unknown."""
    count, images = len(sizes), len(values)
    if count < 2 or images == count:
        return 1.0
    means = np.bincount(patient, values) / sizes
    between = float((sizes * (means - values.mean()) ** 2).sum()) / (count - 1)
    within = float(((values - means[patient]) ** 2).sum()) / (images - count)
    size = (images - float((sizes**2).sum()) / images) / (count - 1)
    total = between + (size - 1) * within
    return min(max((between - within) / total, 0.0), 1.0) if total > 0 else 1.0


@dataclass(frozen=True)
class Coverage:
    """Coverage of prediction sets on a split that they were not calibrated on.

    Args:
        level: nominal coverage.
        split: name of the evaluated split, with this number of `images`.
        fitted_on: name of the split that the sets were calibrated on.
        coverage: fraction of the sets that contain the true class; if patients are known, its mean over patients.
        size: mean number of classes per set.
        patients: number of patients or videos; None: not known.
    """

    level: float
    split: str
    fitted_on: str
    images: int
    coverage: float
    size: float
    patients: int | None = None


def evaluate_coverage(
    conformal_sets: ConformalSets,
    logits: np.ndarray,
    labels: np.ndarray,
    split: str,
    fitted_on: str,
    level: float = 0.9,
    groups: Sequence[Any] | None = None,
) -> Coverage:
    """Computes the coverage and size of the prediction sets on a split that they were not calibrated on.

    Args:
        groups: patient or video of each image (images,); None: not known.
    """
    sets = conformal_sets.predict_sets(softmax(logits), level)
    covered, size, patients = sets[np.arange(len(labels)), labels].astype(float), float(sets.sum(1).mean()), None
    if groups is not None:
        patient = np.unique(np.asarray(groups).astype(str), return_inverse=True)[1].ravel()
        covered = np.bincount(patient, covered) / np.bincount(patient)
        patients = len(covered)
    return Coverage(level, split, fitted_on, len(labels), float(covered.mean()), size, patients)
