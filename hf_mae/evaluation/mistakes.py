"""The most confident mistakes of a classifier."""

import numpy as np


def confident_mistakes(scores: np.ndarray, labels: np.ndarray, per_class: int) -> dict[int, list[int]]:
    """True class -> the images of it that are most confidently taken for another, surest first.

    Args:
        scores: (images, classes); labels: class ids (images,).
    """
    best = scores.argmax(-1)
    wrong = np.flatnonzero(best != labels)
    surest = wrong[np.argsort(-scores[wrong, best[wrong]], kind="stable")]
    return {int(c): surest[labels[surest] == c][:per_class].tolist() for c in np.unique(labels[wrong])}
