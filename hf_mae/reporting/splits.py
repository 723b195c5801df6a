"""What the evaluation of a split leaves behind: its predictions, figures and scores."""

from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.scores import score_split, softmax
from ..runs.predictions import write_predictions
from . import figures


def write_split(
    folder: Path,
    split: str,
    images: Any,
    logits: np.ndarray,
    labels: np.ndarray,
    names: list[str],
    ordered: bool = False,
) -> dict[str, Any]:
    """Writes `predictions_<split>.csv` and the figures; returns the split's scores.

    Args:
        images: `EvaluationImages`, whose `file_names` and `groups` go with the rows of `logits`.
        ordered: as of `score_split`.
    """
    scores, class_scores = score_split(logits, labels, names, ordered), softmax(logits)
    path = folder / f"predictions_{split}.csv"
    write_predictions(path, images.file_names, class_scores, labels, names, images.groups)
    figures.figures_of_split(folder, split, class_scores, labels, names, scores)
    return scores
