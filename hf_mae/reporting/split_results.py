"""What the evaluation of a split leaves behind: its predictions, figures and scores."""

from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.metrics import scalar_scores
from ..evaluation.scores import score_split, softmax
from ..files.atomic import write_csv
from ..runs.predictions import write_predictions
from . import figures


def write_split_results(
    folder: Path,
    split: str,
    eval_dataset: Any,
    logits: np.ndarray,
    labels: np.ndarray,
    names: list[str],
    ordered: bool = False,
) -> dict[str, Any]:
    """Writes `predictions_<split>.csv` and the figures; returns the split's scores.

    Args:
        eval_dataset: `EvaluationImages`, whose `file_names` and `groups` go with the rows of `logits`.
        ordered: as of `score_split`.
    """
    scores, class_scores = score_split(logits, labels, names, ordered), softmax(logits)
    path = folder / f"predictions_{split}.csv"
    write_predictions(path, eval_dataset.file_names, class_scores, labels, names, eval_dataset.groups)
    write_metrics_row(folder / f"metrics_{split}.csv", scores)
    figures.plot_split_figures(folder, split, class_scores, labels, names, scores)
    return scores


def write_metrics_row(path: Path, scores: dict[str, Any]) -> None:
    """One row of an evaluation, ours and (`retfound_...`) as RETFound computes them, for whoever gathers rows."""
    own = {name: scores[name] for name in ("num_images", *scalar_scores(scores))}
    theirs = {f"retfound_{name}": value for name, value in scores["retfound"].items()}
    row = own | theirs
    write_csv(path, list(row), [["" if value is None else value for value in row.values()]])
