"""Scores by patient or video, where all images of one have the same class, or classes are grades."""

import numpy as np

from .intervals import Estimate, estimate_headline_metrics
from .prediction_table import Predictions


def estimate_by_patient(folds: list[Predictions]) -> dict[str, dict[str, Estimate]]:
    """Headline scores of patients, by how their images become one.

    Returns:
        `mean`: the class of the highest mean score, where every patient's images are of one class; `worst`: the highest
        grade, true and predicted, where classes are grades. Nothing where no patients are known.
    """
    if any(fold.groups is None for fold in folds):
        return {}
    found = {}
    if all(_has_one_label_per_patient(fold) for fold in folds) and all(fold.class_scores is not None for fold in folds):
        found["mean"] = [_aggregate_mean(fold) for fold in folds]
    if folds[0].ordered:
        found["worst"] = [_aggregate_worst(fold) for fold in folds]
    return {way: estimate_headline_metrics(patients) for way, patients in found.items()}


def _has_one_label_per_patient(predictions: Predictions) -> bool:
    _, place = np.unique(np.asarray(predictions.groups), return_inverse=True)
    return bool(np.unique(np.stack([place.ravel(), predictions.labels]), axis=1).shape[1] == place.max() + 1)


def _aggregate_mean(predictions: Predictions) -> Predictions:
    assert predictions.class_scores is not None, "they are known"
    names, first, place = np.unique(np.asarray(predictions.groups), return_index=True, return_inverse=True)
    scores = np.zeros((len(predictions.predicted), len(names), predictions.num_classes))
    for run, own in enumerate(predictions.class_scores):
        np.add.at(scores[run], place.ravel(), own)
    return Predictions(
        predictions.labels[first], scores.argmax(-1), predictions.num_classes, names, ordered=predictions.ordered
    )


def _aggregate_worst(predictions: Predictions) -> Predictions:
    names, place = np.unique(np.asarray(predictions.groups), return_inverse=True)
    grades = np.zeros((1 + len(predictions.predicted), len(names)), dtype=int)
    for worst, own in zip(grades, [predictions.labels, *predictions.predicted]):
        np.maximum.at(worst, place.ravel(), own)
    return Predictions(grades[0], grades[1:], predictions.num_classes, names, ordered=predictions.ordered)
