"""Scores by patient or video, where all images of one have the same class, or classes are grades."""

import numpy as np

from .intervals import Estimate, estimates
from .statistics import Predictions


def by_patient(folds: list[Predictions]) -> dict[str, dict[str, Estimate]]:
    """Headline scores of patients, by how their images become one.

    Returns:
        `mean`: the class of the highest mean score, where every patient's images are of one class; `worst`: the highest
        grade, true and predicted, where classes are grades. Nothing where no patients are known.
    """
    if any(fold.groups is None for fold in folds):
        return {}
    found = {}
    if all(_is_of_one_class(fold) for fold in folds) and all(fold.class_scores is not None for fold in folds):
        found["mean"] = [_by_mean(fold) for fold in folds]
    if folds[0].ordered:
        found["worst"] = [_by_worst(fold) for fold in folds]
    return {way: estimates(patients) for way, patients in found.items()}


def _is_of_one_class(fold: Predictions) -> bool:
    _, place = np.unique(np.asarray(fold.groups), return_inverse=True)
    return bool(np.unique(np.stack([place.ravel(), fold.labels]), axis=1).shape[1] == place.max() + 1)


def _by_mean(fold: Predictions) -> Predictions:
    assert fold.class_scores is not None, "they are known"
    names, first, place = np.unique(np.asarray(fold.groups), return_index=True, return_inverse=True)
    scores = np.zeros((len(fold.predicted), len(names), fold.num_classes))
    for run, own in enumerate(fold.class_scores):
        np.add.at(scores[run], place.ravel(), own)
    return Predictions(fold.labels[first], scores.argmax(-1), fold.num_classes, names, ordered=fold.ordered)


def _by_worst(fold: Predictions) -> Predictions:
    names, place = np.unique(np.asarray(fold.groups), return_inverse=True)
    grades = np.zeros((1 + len(fold.predicted), len(names)), dtype=int)
    for worst, own in zip(grades, [fold.labels, *fold.predicted]):
        np.maximum.at(worst, place.ravel(), own)
    return Predictions(grades[0], grades[1:], fold.num_classes, names, ordered=fold.ordered)
