"""Mean and standard deviation over folds and seeds, pooled predictions, label efficiency."""

from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.metrics import available_metric_names, classification_scores
from .predictions import read_prediction_table
from .record import CrossvalRun


def mean_and_std(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Computes the mean and the standard deviation of the headline scores over runs, and of the ordinal scores if the
    runs have them. The standard deviation divides by n, as in the published tables of two folds."""
    return {
        name: {"mean": float(np.mean(values)), "std": float(np.std(values)), "values": values}
        for name in available_metric_names(runs[0])
        for values in [[run[name] for run in runs]]
    }


def label_efficiency_curve(runs: list[CrossvalRun], results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Computes the points of a label-efficiency curve, by ascending fraction of the labels: `fraction`, `images` (mean
    over folds), and the scores of `mean_and_std`."""
    points = []
    for fraction in sorted({run.fraction for run in runs}):
        selected = [result for run, result in zip(runs, results) if run.fraction == fraction]
        images = float(np.mean([result["training_images"] for result in selected]))
        points.append({"fraction": fraction, "images": images} | mean_and_std(selected))
    return points


def pool_predictions(folders: list[Path], names: list[str]) -> tuple[list[list[str]], dict[str, Any] | None]:
    """Concatenates the validation predictions of the folds of one seed, and scores all rows together.

    Returns:
        The rows and their scores. The scores are None if an image is in several folds, because it must count once.
    """
    rows: list[list[str]] = []
    for folder in folders:
        table = read_prediction_table(folder, "validation", need_scores=True)
        assert table.class_scores is not None, "the scores were required"
        best_scores = table.class_scores[np.arange(len(table.labels)), table.predicted]
        images = zip(table.file_names, table.labels, table.predicted, best_scores)
        rows += [[name, names[label], names[best], f"{score:.9g}"] for name, label, best, score in images]
    if len({row[0] for row in rows}) < len(rows):  # published folds can overlap
        return rows, None
    ids = {name: index for index, name in enumerate(names)}
    return rows, classification_scores([ids[row[2]] for row in rows], [ids[row[1]] for row in rows], names)
