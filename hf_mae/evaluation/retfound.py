"""RETFound's scores, computed its way, so that its tables can be read beside ours (engine_finetune.py of
rmaphoh/RETFound_MAE, first versions).

Two things are other than they are called: averages over classes leave class 0 out, and `mcc` is the mean over classes
of each class's own coefficient against the rest, not the coefficient of the whole confusion matrix. Where a denominator
is 0 theirs is not a number; here such a score is None.
"""

from typing import Any

import numpy as np

from .metrics import cohen_kappa


def retfound_scores(matrix: Any, ranking: dict[str, Any]) -> dict[str, float | None]:
    """Their row of an evaluation.

    Args:
        matrix: counts (classes, classes), row: true class.
        ranking: `roc_auc` and `average_precision` of `metrics.ranking_scores` (theirs are over every class).

    Returns:
        `accuracy`, `sensitivity`, `specificity`, `precision`, `g_mean`, `f1`, `mcc`: means over all classes but the
        first, each against the rest; `roc_auc`, `average_precision`.
    """
    counts = np.asarray(matrix, dtype=float)
    tp = np.diag(counts)[1:]
    fn, fp = counts.sum(1)[1:] - tp, counts.sum(0)[1:] - tp
    tn = counts.sum() - tp - fn - fp
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity, specificity, precision = tp / (tp + fn), tn / (tn + fp), tp / (tp + fp)
        found = {
            "accuracy": (tp + tn) / counts.sum(),
            "sensitivity": sensitivity,
            "specificity": specificity,
            "precision": precision,
            "g_mean": np.sqrt(sensitivity * specificity),
            "f1": 2 * precision * sensitivity / (precision + sensitivity),
            "mcc": (tn * tp - fp * fn) / np.sqrt((tn + fp) * (tn + fn) * (tp + fn) * (tp + fp)),
        }
    means = {name: float(values.mean()) for name, values in found.items()}
    scores: dict[str, float | None] = {name: value if np.isfinite(value) else None for name, value in means.items()}
    return scores | {name: ranking[name] for name in ("roc_auc", "average_precision")}


def f1_auroc_kappa(macro_f1: float, roc_auc: float | None, matrix: Any) -> float:
    """By which RETFound's newer versions choose the epoch: (macro F1 + AUROC + kappa) / 3; an AUROC that is undefined
    counts as 0.5."""
    return (macro_f1 + (0.5 if roc_auc is None else roc_auc) + cohen_kappa(matrix)) / 3
