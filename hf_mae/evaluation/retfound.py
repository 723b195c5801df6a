"""Metrics by RETFound's definitions, for comparison with its tables (engine_finetune.py of rmaphoh/RETFound_MAE, first
versions).

Two metrics differ from what their names suggest: averages over classes exclude class 0, and `mcc` is the mean of the
one-vs-rest coefficients, not the coefficient of the confusion matrix. If a denominator is 0, RETFound
reports NaN, and these functions None.
"""

from typing import Any

import numpy as np


def retfound_scores(matrix: Any, ranking: dict[str, Any]) -> dict[str, float | None]:
    """Returns one row of RETFound's results table.

    Args:
        matrix: counts (classes, classes), row: true class.
        ranking: `roc_auc` and `average_precision` of `metrics.ranking_scores` (RETFound averages them over all
            classes).

    Returns:
        `accuracy`, `sensitivity`, `specificity`, `precision`, `g_mean`, `f1`, `mcc`: one-vs-rest means over all classes
        except the first; `roc_auc`, `average_precision`.
    """
    counts = np.asarray(matrix, dtype=float)
    tp = np.diag(counts)[1:]
    fn, fp = counts.sum(1)[1:] - tp, counts.sum(0)[1:] - tp
    tn = counts.sum() - tp - fn - fp
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity, specificity, precision = tp / (tp + fn), tn / (tn + fp), tp / (tp + fp)
        by_class = {
            "accuracy": (tp + tn) / counts.sum(),
            "sensitivity": sensitivity,
            "specificity": specificity,
            "precision": precision,
            "g_mean": np.sqrt(sensitivity * specificity),
            "f1": 2 * precision * sensitivity / (precision + sensitivity),
            "mcc": (tn * tp - fp * fn) / np.sqrt((tn + fp) * (tn + fn) * (tp + fn) * (tp + fp)),
        }
    means = {name: float(values.mean()) for name, values in by_class.items()}
    scores: dict[str, float | None] = {name: value if np.isfinite(value) else None for name, value in means.items()}
    return scores | {name: ranking[name] for name in ("roc_auc", "average_precision")}


def f1_auroc_kappa(macro_f1: float, roc_auc: float | None, kappa: float) -> float:
    """Computes the model selection metric of RETFound's newer versions: (macro F1 + AUROC + Cohen's kappa) / 3.

    An undefined AUROC counts as 0.5.
    """
    return (macro_f1 + (0.5 if roc_auc is None else roc_auc) + kappa) / 3
