"""Metrics per patient or video, if all images of a patient have the same class, or if the classes are grades."""

import numpy as np

from .estimation import estimate_headline_metrics
from .intervals import Estimate
from .metrics import argmax_of_sums
from .prediction_table import Predictions


def estimate_by_patient(folds: list[Predictions]) -> dict[str, dict[str, Estimate]]:
    """Estimates the headline metrics of patients, by how their images are aggregated.

    Returns:
        `mean`: the class with the highest mean score, if all images of each patient have the same class; `worst`: the
        highest grade, true and predicted, if the classes are grades. Empty without groups.
    """
    if any(fold.groups is None for fold in folds):
        return {}
    aggregated = {}
    if all(_has_one_label_per_patient(fold) for fold in folds) and all(fold.class_scores is not None for fold in folds):
        aggregated["mean"] = [_aggregate_mean(fold) for fold in folds]
    if folds[0].ordered:
        aggregated["worst"] = [_aggregate_worst(fold) for fold in folds]
    return {aggregation: estimate_headline_metrics(patients) for aggregation, patients in aggregated.items()}


def _has_one_label_per_patient(predictions: Predictions) -> bool:
    _, patient = np.unique(np.asarray(predictions.groups), return_inverse=True)
    return bool(np.unique(np.stack([patient.ravel(), predictions.labels]), axis=1).shape[1] == patient.max() + 1)


def _aggregate_mean(predictions: Predictions) -> Predictions:
    names, first, patient = np.unique(np.asarray(predictions.groups), return_index=True, return_inverse=True)
    sums = np.zeros((len(predictions.predicted), len(names), predictions.num_classes))
    for run, scores in enumerate(predictions.known_scores):
        np.add.at(sums[run], patient.ravel(), scores)
    return Predictions(
        predictions.labels[first], argmax_of_sums(sums), predictions.num_classes, names, ordered=predictions.ordered
    )


def _aggregate_worst(predictions: Predictions) -> Predictions:
    names, patient = np.unique(np.asarray(predictions.groups), return_inverse=True)
    worst_grades = np.zeros((1 + len(predictions.predicted), len(names)), dtype=int)
    for worst, grades in zip(worst_grades, [predictions.labels, *predictions.predicted]):
        np.maximum.at(worst, patient.ravel(), grades)
    return Predictions(worst_grades[0], worst_grades[1:], predictions.num_classes, names, ordered=predictions.ordered)
