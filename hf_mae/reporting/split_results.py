"""Results of the evaluation of a split: predictions, figures and scores."""

from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.calibration import IDENTITY_TEMPERATURE, Temperature
from ..evaluation.estimation import headline_metric_intervals
from ..evaluation.metrics import scalar_scores, score_split, softmax
from ..evaluation.ppv_at_recall import estimate_split_ppv
from ..evaluation.prediction_table import Predictions
from ..files.atomic import write_csv
from ..runs.predictions import write_predictions
from ..settings.one_vs_rest import OneVsRestArguments
from . import notebook  # noqa: F401 (records as HTML)
from .figures.evaluation import plot_split_figures

MAX_CONFUSION_CELLS = 10_000_000  # classes x classes; above it the intervals take too much memory


def score_with_intervals(
    eval_dataset: Any,
    logits: np.ndarray,
    labels: np.ndarray,
    names: list[str],
    ordered: bool = False,
    options: OneVsRestArguments | None = None,
) -> dict[str, Any]:
    """Computes the scores of a split, and `intervals`: the 95 % intervals of the headline scores (None for a score
    without one; empty if their computation would take too much memory), and the PPV at a recall, if requested.

    Args:
        eval_dataset: the `EvalDataset` of the rows of `logits`.
        logits: (images, classes).
        labels: class ids (images,).
        ordered: whether the classes are grades.
        options: of the command.
    """
    scores = score_split(logits, labels, names, ordered)
    groups, predicted = np.array(eval_dataset.groups) if eval_dataset.groups else None, logits.argmax(-1)
    intervals: dict[str, list[float] | None] = {}
    if len(names) ** 2 <= MAX_CONFUSION_CELLS:
        predictions = Predictions(labels, predicted[None], len(names), groups, ordered=ordered)
        estimated = headline_metric_intervals([predictions])
        intervals = {name: None if interval is None else list(interval) for name, interval in estimated.items()}
    return scores | {"intervals": intervals} | estimate_split_ppv(labels, softmax(logits), names, groups, options)


def write_split_results(
    folder: Path,
    split: str,
    eval_dataset: Any,
    logits: np.ndarray,
    labels: np.ndarray,
    names: list[str],
    ordered: bool = False,
    options: OneVsRestArguments | None = None,
    temperature: Temperature = IDENTITY_TEMPERATURE,
) -> dict[str, Any]:
    """Writes the predictions, `metrics_<split>.csv` and the figures of a split; returns its scores.

    Args:
        eval_dataset: the `EvalDataset` of the rows of `logits`.
        logits: (images, classes).
        labels: class ids (images,).
        ordered: whether the classes are grades.
        options: of the command.
    """
    scaled = temperature.scale_logits(logits)
    scores = score_with_intervals(eval_dataset, scaled, labels, names, ordered, options)
    write_predictions(folder, split, eval_dataset.file_names, logits, labels, names, eval_dataset.groups, temperature)
    write_metrics_row(folder / f"metrics_{split}.csv", scores)
    plot_split_figures(folder, split, softmax(scaled), labels, names, scores)
    return scores


def write_metrics_row(path: Path, scores: dict[str, Any]) -> None:
    """Writes the scores of an evaluation as one row of a CSV file, with the scores as RETFound computes them in columns
    `retfound_...`."""
    row = {name: scores[name] for name in ("num_images", *scalar_scores(scores))}
    row |= {f"retfound_{name}": value for name, value in scores["retfound"].items()}
    write_csv(path, list(row), [["" if value is None else value for value in row.values()]])
