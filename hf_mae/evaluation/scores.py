"""Logits -> scores of a split."""

from typing import Any

import numpy as np

from .metrics import calibration, classification_scores, ranking_scores


def softmax(logits: np.ndarray) -> np.ndarray:
    """Scores (images, classes) in float64, as `pipeline("image-classification")` reports them."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponents: np.ndarray = np.exp(shifted)
    scores: np.ndarray = exponents / exponents.sum(axis=-1, keepdims=True)
    return scores


def score_split(logits: np.ndarray, labels: np.ndarray, names: list[str]) -> dict[str, Any]:
    """`classification_scores`, `ranking_scores` and `calibration` of `metrics` together."""
    scores = classification_scores(logits.argmax(-1), labels, names)
    class_scores = softmax(logits)
    return scores | ranking_scores(class_scores, labels, names) | calibration(class_scores, labels)
