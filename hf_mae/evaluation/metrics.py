"""Metrics of a split: classification, ranking, ordinal and calibration metrics.

Macro averages, accuracy and MCC are computed here only, by scikit-learn's conventions and equal to it to 1e-12 (tests):
macro averages are over the classes that occur among the labels or the predictions, and a zero denominator counts as 0.
Functions of confusion matrices take any number of them at once, as intervals and tests need.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special
from sklearn import metrics as sk

from ..settings.metrics import METRICS, MetricKind, metric_names
from .retfound import retfound_scores

CALIBRATION_BINS = 15
SCORE_PRECISION = 1e-6  # relative, of scores in float32: scores this close are on the same side of a threshold
ROUNDING_ERROR = 1e-12  # relative, of sums of scores in float64: scores this close are equal

Floats = NDArray[np.float64]


def headline_metric_names(ordered: bool) -> tuple[str, ...]:
    """Returns the names of the metrics of a table, in order; `ordered`: the classes are grades."""
    return metric_names(MetricKind.HEADLINE, *([MetricKind.ORDINAL] if ordered else []))


def available_metric_names(scores: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of the headline metrics that the scores of a split or run contain."""
    return tuple(name for name in headline_metric_names(ordered=True) if scores.get(name) is not None)


def summary_metric_names() -> tuple[str, ...]:
    """Returns the names of the metrics of a summary in one line: compared between models, and in per cent."""
    names = headline_metric_names(ordered=False)
    return tuple(name for name in names if METRICS[name].compared and METRICS[name].scale == 100)


def display_scale(name: str) -> float:
    """Returns the factor for display: 100 (per cent), or 1 for metrics in grades; 1 for the loss."""
    return METRICS[name].scale if name in METRICS else 1.0


# Metrics of confusion matrices


def safe_divide(numerator: Floats, denominator: Floats) -> Floats:
    """Divides; the quotient is 0 if the denominator is 0."""
    return np.divide(
        numerator, denominator, out=np.zeros(np.broadcast(numerator, denominator).shape), where=denominator > 0
    )


# Comparisons of scores. Rounding errors (of a normalization, a mean over the images of a patient, a file) neither
# separate equal scores nor move a score over a threshold.


def merge_ties(scores: Floats) -> Floats:
    """Replaces scores (images,) that differ by rounding errors only by the lowest of them."""
    tie, lowest = rank_ties(scores)
    return lowest[tie]


def rank_ties(scores: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Numbers the different scores (images,) from the lowest one, as `merge_ties` merges them.

    Returns:
        The number of each score (images,), and the lowest score of each number.
    """
    order = np.argsort(scores)
    ordered = scores[order].astype(np.float64)
    is_new = np.r_[True, np.diff(ordered) > ROUNDING_ERROR * np.abs(ordered[1:])]
    tie = np.empty(len(ordered), dtype=np.int64)
    tie[order] = np.cumsum(is_new) - 1
    return tie, ordered[is_new]


def is_at_least(scores: Floats, threshold: Any) -> NDArray[np.bool_]:
    """Whether scores reach a threshold, up to the precision of float32."""
    reached: NDArray[np.bool_] = scores >= np.asarray(threshold) * (1 - SCORE_PRECISION)
    return reached


def argmax_of_sums(sums: Floats) -> NDArray[np.int64]:
    """Returns the class with the highest sum of scores (..., classes), the first of equal ones."""
    ids: NDArray[np.int64] = (sums >= sums.max(-1, keepdims=True) * (1 - ROUNDING_ERROR)).argmax(-1)
    return ids


def calibration_bins(scores: Floats, bins: int = CALIBRATION_BINS) -> NDArray[np.int64]:
    """Returns the bin of equal width (low, high] of each score."""
    return np.clip(np.ceil(scores * (bins * (1 - SCORE_PRECISION))).astype(np.int64) - 1, 0, bins - 1)


class ConfusionMatrices:
    """Confusion matrices (..., classes, classes), row: reference, and what metrics compute from them, each once.

    Args:
        macro_over_labels: whether means are over the classes of the references only, not also of the predictions.
    """

    divide = staticmethod(safe_divide)

    def __init__(self, counts: ArrayLike, macro_over_labels: bool = False):
        self.counts = np.asarray(counts, dtype=np.float64)
        self.by_class = np.diagonal(self.counts, axis1=-2, axis2=-1)  # correct images of each class (..., classes)
        self.correct: Floats = self.by_class.sum(-1)
        self.support: Floats = self.counts.sum(-1)
        self.predicted: Floats = self.counts.sum(-2)
        self.total: Floats = self.counts.sum((-2, -1))
        self.occurs = (self.support if macro_over_labels else self.support + self.predicted) > 0

    def macro(self, values: Floats) -> Floats:
        """Averages values (..., classes) over the classes that occur among the references or the predictions."""
        mean: Floats = (values * self.occurs).sum(-1) / self.occurs.sum(-1)
        return mean

    @cached_property
    def precision(self) -> Floats:
        """Precision of each class (..., classes)."""
        return safe_divide(self.by_class, self.predicted)

    @cached_property
    def recall(self) -> Floats:
        """Recall of each class (..., classes)."""
        return safe_divide(self.by_class, self.support)

    @cached_property
    def f1(self) -> Floats:
        """F1 of each class (..., classes)."""
        return safe_divide(2 * self.by_class, self.support + self.predicted)

    @cached_property
    def expected(self) -> Floats:
        """Number of images by chance on the diagonal (...), times the number of images."""
        expected: Floats = (self.support * self.predicted).sum(-1)
        return expected

    @property
    def by_chance(self) -> Floats:
        """Fraction of images by chance on the diagonal (...)."""
        return self.expected / self.total**2

    @property
    def spread(self) -> Floats:
        """Denominator of Matthews correlation coefficient (...)."""
        spread: Floats = (self.total**2 - (self.support**2).sum(-1)) * (self.total**2 - (self.predicted**2).sum(-1))
        return np.sqrt(spread)

    @cached_property
    def distance(self) -> Floats:
        """Distance of two grades (grades, grades)."""
        grades = np.arange(self.counts.shape[-1])
        distance: Floats = np.abs(grades[:, None] - grades)
        return distance

    @property
    def observed_distance(self) -> Floats:
        """Sum of the squared distances (...), times the number of images."""
        observed: Floats = self.total * (self.counts * self.distance**2).sum((-2, -1))
        return observed

    @cached_property
    def expected_distance(self) -> Floats:
        """Sum of the squared distances by chance (...), times the number of images."""
        expected: Floats = np.einsum("...k,...l,kl->...", self.support, self.predicted, self.distance**2)
        return expected


def matrix_metrics(matrices: ArrayLike, *kinds: MetricKind, macro_over_labels: bool = False) -> dict[str, Floats]:
    """Computes the metrics (...) of some kinds from confusion matrices (..., classes, classes)."""
    confusion = ConfusionMatrices(matrices, macro_over_labels)
    functions = {name: METRICS[name].function for name in metric_names(*kinds)}
    return {name: function(confusion) for name, function in functions.items() if function is not None}


def headline_metrics(matrices: ArrayLike, ordered: bool = False, macro_over_labels: bool = False) -> dict[str, Floats]:
    """Computes the headline metrics (...) of confusion matrices (..., classes, classes).

    Args:
        ordered: whether the classes are grades; adds the ordinal metrics: `qwk`, quadratic weighted kappa (Cohen,
            1968), 0 if it is undefined (only one grade occurs); `mae`, mean absolute error in grades;
            `one_off_accuracy`, the fraction of images that are at most one grade off.
        macro_over_labels: see `ConfusionMatrices`.
    """
    kinds = [MetricKind.HEADLINE, *([MetricKind.ORDINAL] if ordered else [])]
    return matrix_metrics(matrices, *kinds, macro_over_labels=macro_over_labels)


def ordinal_scores(matrix: Any) -> dict[str, float]:
    """Returns the ordinal metrics of one confusion matrix (grades, grades), as numbers."""
    return {name: float(value) for name, value in matrix_metrics(matrix, MetricKind.ORDINAL).items()}


# Metrics of predictions


def classification_scores(
    predictions: ArrayLike, references: ArrayLike, label_names: list[str] | None = None
) -> dict[str, Any]:
    """Computes metrics of single-label classification from class ids.

    Macro averages are scikit-learn's: over the classes that occur among the references or the predictions. A precision,
    recall or F1 with a zero denominator counts as 0 (scikit-learn's `zero_division=0`); `zero_division` in the result
    names these classes.

    Args:
        predictions, references: int arrays (images,).
        label_names: class names by class id; their number is the size of the confusion matrix.

    Returns:
        The metrics of `METRICS` from confusion matrices, except the ordinal ones, as numbers; `micro_precision`,
        `micro_recall`, `micro_f1`; `per_class` {name: {precision, recall, f1, support, predicted}}; `confusion_matrix`
        (row: reference, column: prediction); `zero_division` {metric: [names]}; `num_images`.

    Raises:
        ValueError: If the arrays are empty, or if a class id is not in `label_names`.
    """
    predicted_ids, true_ids = np.asarray(predictions, dtype=int), np.asarray(references, dtype=int)
    if len(true_ids) == 0:
        raise ValueError("The predictions are empty.")
    class_ids = np.union1d(predicted_ids, true_ids)
    if label_names is None:
        label_names = [str(index) for index in range(int(class_ids.max()) + 1)]
    if class_ids.min() < 0 or class_ids.max() >= len(label_names):
        raise ValueError(
            f"Class ids range from {class_ids.min()} to {class_ids.max()}, but there are {len(label_names)} classes."
        )
    matrix = sk.confusion_matrix(true_ids, predicted_ids, labels=range(len(label_names)))
    confusion, support, predicted = ConfusionMatrices(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    metrics = matrix_metrics(matrix, MetricKind.HEADLINE, MetricKind.SECONDARY)
    scores: dict[str, Any] = {name: float(value) for name, value in metrics.items()}
    # With one label per image the micro averages equal the accuracy.
    scores |= dict.fromkeys(("micro_precision", "micro_recall", "micro_f1"), scores["accuracy"])
    scores["per_class"] = {
        name: {key: float(getattr(confusion, key)[i]) for key in ("precision", "recall", "f1")}
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


def ranking_scores(class_scores: np.ndarray, references: np.ndarray, label_names: list[str]) -> dict[str, Any]:
    """Computes ROC AUC (one-vs-rest) and average precision, macro-averaged as in scikit-learn.

    Args:
        class_scores: (images, classes), each row summing to 1.
        references: class ids (images,).

    Returns:
        `roc_auc` and `average_precision`; both are None if a class has no image, or all images, and
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
    """Computes the expected calibration error of the predicted class, over equal-width bins of its score (Guo et al.,
    2017).

    Args:
        class_scores: (images, classes), each row summing to 1.
        references: class ids (images,).

    Returns:
        `ece`, and `calibration`: per bin `low`, `high`, `images`, mean `score` and `accuracy` (None if it is empty).
    """
    confidence = class_scores.max(axis=1)
    correct = class_scores.argmax(axis=1) == references
    bin_index = calibration_bins(confidence, bins)
    rows, error = [], 0.0
    for index in range(bins):
        inside = bin_index == index
        count = int(inside.sum())
        row: dict[str, Any] = {"low": index / bins, "high": (index + 1) / bins, "images": count}
        if count:
            row |= {"score": float(confidence[inside].mean()), "accuracy": float(correct[inside].mean())}
            error += count / len(confidence) * abs(row["accuracy"] - row["score"])
        rows.append({"score": None, "accuracy": None} | row)
    return {"ece": error, "calibration": rows}


def risk_coverage(class_scores: np.ndarray, references: np.ndarray) -> dict[str, Any]:
    """Computes the risk-coverage curve: the error rate if the model abstains on the images with the lowest scores.

    Args:
        class_scores: (images, classes); the highest score of an image is its confidence.
        references: class ids (images,).

    Returns:
        `aurc`, the mean risk over all coverages (Geifman et al., 2019), and `risk_coverage`: the risk at coverages in
        steps of 5 %. The order of images with equal scores is arbitrary; their errors are spread evenly over them.
    """
    confidence, wrong = merge_ties(class_scores.max(axis=1)), class_scores.argmax(axis=1) != references
    order = np.argsort(-confidence, kind="stable")
    _, tie = np.unique(-confidence[order], return_inverse=True)
    errors = (np.bincount(tie, wrong[order]) / np.bincount(tie))[tie]
    risks = np.cumsum(errors) / np.arange(1, len(confidence) + 1)
    counts = [max(1, round(step / 20 * len(confidence))) for step in range(1, 21)]
    rows = [{"coverage": count / len(confidence), "risk": float(risks[count - 1])} for count in counts]
    return {"aurc": float(risks.mean()), "risk_coverage": rows}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Computes scores (images, classes) in float64, as `pipeline("image-classification")` reports them."""
    scores: np.ndarray = special.softmax(logits.astype(np.float64), axis=-1)
    return scores


def score_split(logits: np.ndarray, labels: np.ndarray, names: list[str], ordered: bool = False) -> dict[str, Any]:
    """Computes all metrics of a split from its logits (images, classes) and class ids (images,).

    Args:
        ordered: whether the classes are grades in the order of their ids; adds the ordinal metrics.

    Returns:
        The results of `classification_scores`, `ranking_scores`, `expected_calibration_error` and `risk_coverage`, and
        `retfound`: the metrics by RETFound's definitions.
    """
    scores = classification_scores(logits.argmax(-1), labels, names)
    if ordered:
        scores |= ordinal_scores(scores["confusion_matrix"])
    class_scores = softmax(logits)
    ranking = ranking_scores(class_scores, labels, names)
    scores["retfound"] = retfound_scores(scores["confusion_matrix"], ranking)
    return scores | ranking | expected_calibration_error(class_scores, labels) | risk_coverage(class_scores, labels)


def scalar_scores(scores: dict[str, Any]) -> dict[str, float]:
    """Selects the numbers, which a training log can contain."""
    return {name: value for name, value in scores.items() if isinstance(value, float)}
