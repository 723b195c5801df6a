"""The classification metrics as an `evaluate.Metric`, on sklearn."""

import warnings

import datasets
import evaluate
import numpy as np
from sklearn import metrics as sk

AVERAGES = ("macro", "micro")
# In the order of the published tables.
TITLES = {
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "accuracy": "accuracy",
    "mcc": "MCC",
}
HEADLINE = tuple(TITLES)
CALIBRATION_BINS = 15

_DESCRIPTION = """Accuracy, balanced accuracy, macro and micro precision / recall / F1, Matthews correlation
coefficient, per-class scores and the confusion matrix, as scikit-learn computes them."""


class ClassificationMetrics(evaluate.Metric):
    """Metrics of single-label classification.

    Macro averages are sklearn's own: over the classes that occur among the references or the predictions. A precision,
    recall or F1 whose denominator is zero counts as 0 (sklearn's `zero_division=0`), and `zero_division` in the result
    names the classes where that happened.

        ClassificationMetrics().compute(predictions=[0, 1], references=[0, 1], label_names=["polyp", "mucosa"])
    """

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description="predictions, references: class ids (int), one for each image.",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
            reference_urls=["https://scikit-learn.org/stable/modules/model_evaluation.html"],
        )

    def _compute(self, predictions, references, label_names=None):
        return classification_scores(predictions, references, label_names)


def classification_scores(predictions, references, label_names: list[str] | None = None) -> dict:
    """The scores of `ClassificationMetrics` for class ids.

    Args:
        predictions, references: int arrays (images,).
        label_names: names by class id; also how many classes the confusion matrix has.

    Returns:
        Shares between 0 and 1 (MCC: -1 to 1): `accuracy`, `balanced_accuracy`, `{macro,micro}_{precision,recall,f1}`,
        `mcc`; `per_class` {name: {precision, recall, f1, support, predicted}}; `confusion_matrix` (row: reference,
        column: prediction); `zero_division` {score: [names]}; `num_images`.

    Raises:
        ValueError: nothing to score, or a class id outside `label_names`.
    """
    predictions, references = np.asarray(predictions, dtype=int), np.asarray(references, dtype=int)
    if len(references) == 0:
        raise ValueError("There is nothing to score: no image was evaluated.")
    occurring = np.union1d(predictions, references)
    if label_names is None:
        label_names = [str(index) for index in range(int(occurring.max()) + 1)]
    if occurring.min() < 0 or occurring.max() >= len(label_names):
        raise ValueError(
            f"Class ids go from {occurring.min()} to {occurring.max()}, but there are {len(label_names)} classes."
        )

    scores = {"accuracy": float(sk.accuracy_score(references, predictions))}
    with warnings.catch_warnings():  # a class that is predicted but absent: sklearn says so, and so do we, below
        warnings.simplefilter("ignore", UserWarning)
        scores["balanced_accuracy"] = float(sk.balanced_accuracy_score(references, predictions))
    for average in AVERAGES:
        values = sk.precision_recall_fscore_support(references, predictions, average=average, zero_division=0)
        scores |= {f"{average}_{name}": float(value) for name, value in zip(("precision", "recall", "f1"), values)}
    scores["mcc"] = float(sk.matthews_corrcoef(references, predictions))

    every = np.arange(len(label_names))
    matrix = sk.confusion_matrix(references, predictions, labels=every)
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        references, predictions, labels=every, zero_division=0
    )
    predicted = matrix.sum(axis=0)
    scores["per_class"] = {
        name: {
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "support": int(support[i]),
            "predicted": int(predicted[i]),
        }
        for i, name in enumerate(label_names)
    }
    scores["confusion_matrix"] = matrix.tolist()
    scores["zero_division"] = {
        "precision": [name for i, name in enumerate(label_names) if predicted[i] == 0 and support[i] > 0],
        "recall": [name for i, name in enumerate(label_names) if support[i] == 0 and predicted[i] > 0],
        "absent": [name for i, name in enumerate(label_names) if support[i] == 0 and predicted[i] == 0],
    }
    scores["num_images"] = len(references)
    return scores


def ranking_scores(class_scores: np.ndarray, references: np.ndarray, label_names: list[str]) -> dict:
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


def calibration(class_scores: np.ndarray, references: np.ndarray, bins: int = CALIBRATION_BINS) -> dict:
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
        score, accuracy = (float(best[inside].mean()), float(right[inside].mean())) if count else (None, None)
        error += count / len(best) * abs(accuracy - score) if count else 0.0
        edges = {"low": index / bins, "high": (index + 1) / bins}
        rows.append(edges | {"images": count, "score": score, "accuracy": accuracy})
    return {"ece": error, "calibration": rows}


def scalar_scores(scores: dict) -> dict[str, float]:
    """What a training log can hold: the numbers alone."""
    return {name: value for name, value in scores.items() if isinstance(value, float)}


def zero_division_notes(scores: dict) -> list[str]:
    """Sentences on where a zero denominator was counted as 0, and which classes no macro average includes."""
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
    return notes
