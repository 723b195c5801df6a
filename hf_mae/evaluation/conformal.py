"""Split conformal prediction: sets of classes that contain the true class with a given probability."""

from dataclasses import dataclass

import numpy as np

from .metrics import SCORE_PRECISION, softmax


@dataclass(frozen=True)
class ConformalSets:
    """Label-conditional (Mondrian) conformal prediction sets (Vovk, 2012; Sadinle et al., 2019).

    The set of an image contains each class whose score is not among the lowest of the calibration images of that class.
    If an image is exchangeable with the calibration images of its class, its set contains its class with the requested
    probability, for every class and however poor the scores are.

    Args:
        calibration_scores: per class, the sorted scores that its calibration images give to it.
    """

    calibration_scores: list[np.ndarray]

    @classmethod
    def fit(cls, class_scores: np.ndarray, labels: np.ndarray) -> "ConformalSets":
        """Calibrates on scores (images, classes) and class ids (images,)."""
        true_scores = class_scores[np.arange(len(labels)), labels]
        return cls([np.sort(true_scores[labels == index]) for index in range(class_scores.shape[1])])

    def p_values(self, class_scores: np.ndarray) -> np.ndarray:
        """Computes p values (images, classes): fraction of the calibration images of the class, and this image, with no
        higher score."""
        columns = [
            (np.searchsorted(calibration, column * (1 + SCORE_PRECISION), side="right") + 1) / (len(calibration) + 1)
            for calibration, column in zip(self.calibration_scores, class_scores.T, strict=True)
        ]
        return np.stack(columns, axis=1)

    def predict_sets(self, class_scores: np.ndarray, level: float) -> np.ndarray:
        """Computes whether each class is in the set of each image (images, classes), at a level such as 0.9."""
        return self.p_values(class_scores) > 1 - level + 1e-12

    def uninformative_classes(self, level: float) -> list[int]:
        """Returns the classes that every set contains because they have too few calibration images."""
        return [
            index for index, scores in enumerate(self.calibration_scores) if 1 / (len(scores) + 1) > 1 - level + 1e-12
        ]


@dataclass(frozen=True)
class Coverage:
    """Coverage of prediction sets on a split that they were not calibrated on.

    Args:
        level: nominal coverage.
        split: name of the evaluated split, with this number of `images`.
        fitted_on: name of the split that the sets were calibrated on.
        coverage: fraction of the sets that contain the true class.
        size: mean number of classes per set.
    """

    level: float
    split: str
    fitted_on: str
    images: int
    coverage: float
    size: float


def evaluate_coverage(
    conformal_sets: ConformalSets,
    logits: np.ndarray,
    labels: np.ndarray,
    split: str,
    fitted_on: str,
    level: float = 0.9,
) -> Coverage:
    """Computes the coverage and size of the prediction sets on a split that they were not calibrated on."""
    sets = conformal_sets.predict_sets(softmax(logits), level)
    coverage, size = float(sets[np.arange(len(labels)), labels].mean()), float(sets.sum(1).mean())
    return Coverage(level, split, fitted_on, len(labels), coverage, size)
