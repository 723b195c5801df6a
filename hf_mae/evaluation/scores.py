"""Logits -> scores of a split."""

from typing import Any

import numpy as np

from .confusion import ordinal_metrics
from .metrics import classification_scores, expected_calibration_error, ranking_scores, risk_coverage
from .retfound import retfound_scores


def softmax(logits: np.ndarray) -> np.ndarray:
    """Scores (images, classes) in float64, as `pipeline("image-classification")` reports them."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponents: np.ndarray = np.exp(shifted)
    scores: np.ndarray = exponents / exponents.sum(axis=-1, keepdims=True)
    return scores


def score_split(logits: np.ndarray, labels: np.ndarray, names: list[str], ordered: bool = False) -> dict[str, Any]:
    """`classification_scores`, `ranking_scores`, `calibration` and `risk_coverage` of `metrics` together.

    Args:
        ordered: classes are grades, in the order of their ids: `qwk`, `mae` and `one_off_accuracy` too.

    Returns:
        Their scores, and `retfound`: RETFound's, computed its way.
    """
    scores = classification_scores(logits.argmax(-1), labels, names)
    if ordered:
        scores |= ordinal_scores(scores["confusion_matrix"])
    class_scores = softmax(logits)
    ranking = ranking_scores(class_scores, labels, names)
    scores["retfound"] = retfound_scores(scores["confusion_matrix"], ranking)
    return scores | ranking | expected_calibration_error(class_scores, labels) | risk_coverage(class_scores, labels)


def ordinal_scores(matrix: Any) -> dict[str, float]:
    """The scores of grades, of one confusion matrix (grades, grades)."""
    return {name: float(value) for name, value in ordinal_metrics(matrix).items()}
