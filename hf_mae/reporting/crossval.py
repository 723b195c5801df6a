"""Mean and standard deviation over folds and seeds, pooled predictions, label efficiency."""

from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.confusion import available_metric_names
from ..evaluation.metrics import classification_scores
from ..runs.predictions import read_prediction_rows
from ..runs.record import CrossvalRun


def mean_and_std(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean and standard deviation (over n, as the published tables for two folds) of the headline scores, and of those
    of grades where every run has them."""
    return {
        name: {"mean": float(np.mean(values)), "std": float(np.std(values)), "values": values}
        for name in available_metric_names(runs[0])
        for values in [[run[name] for run in runs]]
    }


def label_efficiency_curve(runs: list[CrossvalRun], results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By share of the labels, smallest first: `fraction`, `images` (mean over folds), and `mean_and_std`."""
    points = []
    for fraction in sorted({run.fraction for run in runs}):
        chosen = [result for run, result in zip(runs, results) if run.fraction == fraction]
        images = float(np.mean([result["training_images"] for result in chosen]))
        points.append({"fraction": fraction, "images": images} | mean_and_std(chosen))
    return points


def pool_predictions(folders: list[Path], names: list[str]) -> tuple[list[list[str]], dict[str, Any] | None]:
    """Rows of every fold's `predictions_validation.csv` (of one seed), and their scores together.

    None in place of scores: an image stands in several folds, and must not count several times.
    """
    rows: list[list[str]] = []
    for folder in folders:
        found, _ = read_prediction_rows(folder / "predictions_validation.csv")
        rows += [[row["file_name"], row["label"], row["prediction"], row["score"]] for row in found]
    if len({row[0] for row in rows}) < len(rows):  # published folds may overlap
        return rows, None
    ids = {name: index for index, name in enumerate(names)}
    return rows, classification_scores([ids[row[2]] for row in rows], [ids[row[1]] for row in rows], names)
