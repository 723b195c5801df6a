"""What a split is scored by: classification metrics, ranking metrics and calibration."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn import metrics as sk

from .confusion import HEADLINE, TITLES, headline_metrics, per_class_prf

__all__ = [
    "HEADLINE",
    "TITLES",
    "classification_scores",
    "expected_calibration_error",
    "ranking_scores",
    "scalar_scores",
]

CALIBRATION_BINS = 15
# After every epoch.
LOGGED_METRICS = ("accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "mcc", "kappa")


def classification_scores(
    predictions: ArrayLike, references: ArrayLike, label_names: list[str] | None = None
) -> dict[str, Any]:
    """Scores of single-label classification, from class ids.

    Macro averages are sklearn's own: over the classes that occur among the references or the predictions. A precision,
    recall or F1 whose denominator is zero counts as 0 (sklearn's `zero_division=0`), and `zero_division` in the result
    names the classes where that happened.

    Args:
        predictions, references: int arrays (images,).
        label_names: names by class id; also how many classes the confusion matrix has.

    Returns:
        Shares between 0 and 1 (MCC: -1 to 1): `accuracy`, `balanced_accuracy`, `{macro,micro}_{precision,recall,f1}`,
        `mcc`; Cohen's `kappa`; `per_class` {name: {precision, recall, f1, support, predicted}}; `confusion_matrix`
        (row: reference, column: prediction); `zero_division` {score: [names]}; `num_images`.

    Raises:
        ValueError: nothing to score, or a class id outside `label_names`.
    """
    predicted_ids, true_ids = np.asarray(predictions, dtype=int), np.asarray(references, dtype=int)
    if len(true_ids) == 0:
        raise ValueError("There is nothing to score: no image was evaluated.")
    occurring = np.union1d(predicted_ids, true_ids)
    if label_names is None:
        label_names = [str(index) for index in range(int(occurring.max()) + 1)]
    if occurring.min() < 0 or occurring.max() >= len(label_names):
        raise ValueError(
            f"Class ids go from {occurring.min()} to {occurring.max()}, but there are {len(label_names)} classes."
        )
    matrix = sk.confusion_matrix(true_ids, predicted_ids, labels=range(len(label_names)))
    headline = {name: float(value) for name, value in headline_metrics(matrix).items()}
    values, support, predicted = per_class_prf(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    scores: dict[str, Any] = {"accuracy": headline["accuracy"]}
    scores["balanced_accuracy"] = float(values["recall"][support > 0].mean())
    scores |= {name: headline[name] for name in ("macro_precision", "macro_recall", "macro_f1")}
    scores |= dict.fromkeys(("micro_precision", "micro_recall", "micro_f1"), headline["accuracy"])  # of single labels
    scores["mcc"] = headline["mcc"]
    scores["kappa"] = cohen_kappa(matrix)
    scores["per_class"] = {
        name: {key: float(by_name[i]) for key, by_name in values.items()}
        | {"support": int(support[i]), "predicted": int(predicted[i])}
        for i, name in enumerate(label_names)
    }
    scores["confusion_matrix"] = matrix.tolist()
    scores["zero_division"] = {
        "precision": [name for i, name in enumerate(label_names) if predicted[i] == 0 and support[i] > 0],
        "recall": [name for i, name in enumerate(label_names) if support[i] == 0 and predicted[i] > 0],
        "absent": [name for i, name in enumerate(label_names) if support[i] == 0 and predicted[i] == 0],
    }
    scores["num_images"] = len(true_ids)
    return scores


def cohen_kappa(matrix: ArrayLike) -> float:
    """Cohen's kappa (1960) of a confusion matrix (classes, classes), as scikit-learn's; 0 where it is undefined."""
    counts = np.asarray(matrix, dtype=float)
    total = counts.sum()
    by_chance = float(counts.sum(0) @ counts.sum(1)) / total**2
    return 0.0 if by_chance == 1 else float((np.trace(counts) / total - by_chance) / (1 - by_chance))


def ranking_scores(class_scores: np.ndarray, references: np.ndarray, label_names: list[str]) -> dict[str, Any]:
    """ROC AUC (each class against the rest) and average precision, macro averages as sklearn's.

    Args:
        class_scores: (images, classes), each row summing to 1.
        references: class ids (images,).

    Returns:
        `roc_auc` and `average_precision`; None where a class is absent from the references (or is all there is), and
        `undefined_ranking` then names such classes.
    """
    counts = np.bincount(references, minlength=len(label_names))
    undefined = [name for name, count in zip(label_names, counts) if count in (0, len(references))]
    if undefined:
        return {"roc_auc": None, "average_precision": None, "undefined_ranking": undefined}
    one_hot = np.eye(len(label_names), dtype=int)[references]
    return {
        "roc_auc": float(sk.roc_auc_score(one_hot, class_scores, average="macro")),
        "average_precision": float(sk.average_precision_score(one_hot, class_scores, average="macro")),
        "undefined_ranking": [],
    }


def expected_calibration_error(
    class_scores: np.ndarray, references: np.ndarray, bins: int = CALIBRATION_BINS
) -> dict[str, Any]:
    """Expected calibration error of the predicted class, over equal bins of its score (Guo et al. 2017).

    Args:
        class_scores: (images, classes), each row summing to 1.
        references: class ids (images,).

    Returns:
        `ece`, and `calibration`: for each bin `low`, `high`, `images`, mean `score` and `accuracy` (None if empty).
    """
    best = class_scores.max(axis=1)
    right = class_scores.argmax(axis=1) == references
    which = np.clip(np.ceil(best * bins).astype(int) - 1, 0, bins - 1)  # bins are (low, high]
    rows, error = [], 0.0
    for index in range(bins):
        inside = which == index
        count = int(inside.sum())
        row: dict[str, Any] = {"low": index / bins, "high": (index + 1) / bins, "images": count}
        if count:
            row |= {"score": float(best[inside].mean()), "accuracy": float(right[inside].mean())}
            error += count / len(best) * abs(row["accuracy"] - row["score"])
        rows.append({"score": None, "accuracy": None} | row)
    return {"ece": error, "calibration": rows}


def risk_coverage(class_scores: np.ndarray, references: np.ndarray) -> dict[str, Any]:
    """What is wrong among the images that are answered, where the least sure ones are left to a person.

    Args:
        class_scores: (images, classes); the highest of an image says how sure it is.
        references: class ids (images,).

    Returns:
        `aurc`, the mean of the risk over all coverages (Geifman et al. 2019), and `risk_coverage`: for coverages in
        steps of 5 %, the share that is wrong. Images of the same score are answered together or in any order: their
        errors are spread evenly over them.
    """
    best, wrong = class_scores.max(axis=1), class_scores.argmax(axis=1) != references
    order = np.argsort(-best, kind="stable")
    _, group = np.unique(-best[order], return_inverse=True)
    spread = (np.bincount(group, wrong[order]) / np.bincount(group))[group]
    risks = np.cumsum(spread) / np.arange(1, len(best) + 1)
    counts = [max(1, round(step / 20 * len(best))) for step in range(1, 21)]
    rows = [{"coverage": count / len(best), "risk": float(risks[count - 1])} for count in counts]
    return {"aurc": float(risks.mean()), "risk_coverage": rows}


def scalar_scores(scores: dict[str, Any]) -> dict[str, float]:
    """What a training log can hold: the numbers alone."""
    return {name: value for name, value in scores.items() if isinstance(value, float)}


def zero_division_notes(scores: dict[str, Any]) -> list[str]:
    """Sentences on where a zero denominator was counted as 0, and over which classes averages are."""
    zero = scores["zero_division"]
    texts = {
        "precision": "never predicted, so their precision counts as 0",
        "recall": "predicted but absent from this split, so their recall counts as 0",
        "absent": "neither in this split nor predicted, so no macro average includes them",
    }
    notes = [f"{', '.join(zero[key])}: {text}." for key, text in texts.items() if zero[key]]
    if undefined := scores.get("undefined_ranking"):
        notes.append(
            f"ROC AUC and average precision are undefined: no image, or every image, is {', '.join(undefined)}."
        )
    names = list(scores.get("per_class", {}))
    if scores.get("average_precision") is not None and len(names) == 2:
        notes.append(f"Average precision is the mean of {names[0]}'s and {names[1]}'s: neither is the positive class.")
    return notes
