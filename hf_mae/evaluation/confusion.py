"""Scores of confusion matrices: the one place where macro averages, accuracy and MCC are computed.

By scikit-learn's conventions, and equal to it to 1e-12 (tests): macro averages are over the classes that occur among
the labels or the predictions, and a zero denominator counts as 0. For any number of matrices at once, as
intervals and tests need them.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

# In the order of the published tables.
TITLES = {
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "accuracy": "accuracy",
    "mcc": "MCC",
}
HEADLINE = tuple(TITLES)

Floats = NDArray[np.float64]


def ratio(above: Floats, below: Floats) -> Floats:
    """A quotient, 0 where the denominator is."""
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below > 0)


def by_class(matrices: ArrayLike) -> dict[str, Floats]:
    """`precision`, `recall` and `f1` of every class (..., classes), of matrices (..., classes, classes)."""
    counts = np.asarray(matrices, dtype=np.float64)
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    true, predicted = counts.sum(-1), counts.sum(-2)
    return {
        "precision": ratio(right, predicted),
        "recall": ratio(right, true),
        "f1": ratio(2 * right, true + predicted),
    }


def scores_of(matrices: ArrayLike) -> dict[str, Floats]:
    """The headline scores (...) of confusion matrices (..., classes, classes)."""
    counts = np.asarray(matrices, dtype=np.float64)
    right = np.diagonal(counts, axis1=-2, axis2=-1).sum(-1)
    true, predicted, total = counts.sum(-1), counts.sum(-2), counts.sum((-2, -1))
    occurring = (true + predicted) > 0
    expected = (true * predicted).sum(-1)
    spread = (total**2 - (true**2).sum(-1)) * (total**2 - (predicted**2).sum(-1))
    macro = {
        f"macro_{name}": (values * occurring).sum(-1) / occurring.sum(-1) for name, values in by_class(counts).items()
    }
    return macro | {"accuracy": right / total, "mcc": ratio(right * total - expected, np.sqrt(spread))}
