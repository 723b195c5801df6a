"""Scores of confusion matrices: the one place where macro averages, accuracy and MCC are computed.

By scikit-learn's conventions, and equal to it to 1e-12 (tests): macro averages are over the classes that occur among
the labels or the predictions, and a zero denominator counts as 0. For any number of matrices at once, as
intervals and tests need them.
"""

from collections.abc import Mapping
from typing import Any

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
# Beside them where classes are grades (Mayo score, retinopathy), in the order of their ids.
ORDINAL = {"qwk": "QWK", "mae": "MAE", "one_off_accuracy": "one-off accuracy"}
TITLES = TITLES | ORDINAL
NON_PERCENT = ("mae",)  # the others are shares, and shown in per cent

Floats = NDArray[np.float64]


def safe_divide(numerator: Floats, denominator: Floats) -> Floats:
    """A quotient, 0 where the denominator is."""
    return np.divide(
        numerator, denominator, out=np.zeros(np.broadcast(numerator, denominator).shape), where=denominator > 0
    )


def per_class_prf(matrices: ArrayLike) -> dict[str, Floats]:
    """`precision`, `recall` and `f1` of every class (..., classes), of matrices (..., classes, classes)."""
    counts = np.asarray(matrices, dtype=np.float64)
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    true, predicted = counts.sum(-1), counts.sum(-2)
    return {
        "precision": safe_divide(right, predicted),
        "recall": safe_divide(right, true),
        "f1": safe_divide(2 * right, true + predicted),
    }


def headline_metric_names(ordered: bool) -> tuple[str, ...]:
    """The scores of a table, in order; `ordered`: classes are grades."""
    return (*HEADLINE, *ORDINAL) if ordered else HEADLINE


def available_metric_names(scores: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of a split's scores, or of a run's."""
    return headline_metric_names("qwk" in scores)


def display_scale(name: str) -> float:
    """What a score is multiplied by to be shown: per cent, but for what is in grades."""
    return 1.0 if name in NON_PERCENT else 100.0


def headline_metrics(matrices: ArrayLike, ordered: bool = False) -> dict[str, Floats]:
    """The headline scores (...) of confusion matrices (..., classes, classes).

    Args:
        ordered: classes are grades: `ORDINAL` too.
    """
    counts = np.asarray(matrices, dtype=np.float64)
    right = np.diagonal(counts, axis1=-2, axis2=-1).sum(-1)
    true, predicted, total = counts.sum(-1), counts.sum(-2), counts.sum((-2, -1))
    occurring = (true + predicted) > 0
    expected = (true * predicted).sum(-1)
    spread = (total**2 - (true**2).sum(-1)) * (total**2 - (predicted**2).sum(-1))
    macro = {
        f"macro_{name}": (values * occurring).sum(-1) / occurring.sum(-1)
        for name, values in per_class_prf(counts).items()
    }
    found = macro | {"accuracy": right / total, "mcc": safe_divide(right * total - expected, np.sqrt(spread))}
    return found | ordinal_metrics(counts) if ordered else found


def ordinal_metrics(matrices: ArrayLike) -> dict[str, Floats]:
    """Quadratic weighted kappa (Cohen, 1968; 0 where it is undefined: one grade alone), mean absolute error in grades,
    and the share that is at most one grade off (...), of confusion matrices (..., grades, grades)."""
    counts = np.asarray(matrices, dtype=np.float64)
    grades = np.arange(counts.shape[-1])
    apart = np.abs(grades[:, None] - grades)
    true, predicted, total = counts.sum(-1), counts.sum(-2), counts.sum((-2, -1))
    by_chance = np.einsum("...k,...l,kl->...", true, predicted, apart**2)
    seen = total * (counts * apart**2).sum((-2, -1))
    return {
        "qwk": np.where(by_chance > 0, 1 - safe_divide(seen, by_chance), 0.0),
        "mae": (counts * apart).sum((-2, -1)) / total,
        "one_off_accuracy": (counts * (apart <= 1)).sum((-2, -1)) / total,
    }
