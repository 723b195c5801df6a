"""Classification metrics as an `evaluate.Metric`; a module of its own because importing `evaluate` takes seconds."""

from typing import Any

import datasets
import evaluate

from .metrics import classification_scores

_DESCRIPTION = """Accuracy, balanced accuracy, macro and micro precision / recall / F1, Matthews correlation
coefficient, per-class metrics and the confusion matrix, by scikit-learn's conventions."""


class ClassificationMetrics(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """Metrics of single-label classification: `classification_scores` for users of `evaluate`.

    ClassificationMetrics().compute(predictions=[0, 1], references=[0, 1], label_names=["polyp", "mucosa"])
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description="predictions, references: one class id (int) per image.",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
            reference_urls=["https://scikit-learn.org/stable/modules/model_evaluation.html"],
        )

    def _compute(self, predictions: Any, references: Any, label_names: list[str] | None = None) -> dict[str, Any]:
        return classification_scores(predictions, references, label_names)
