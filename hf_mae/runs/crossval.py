"""Mean and standard deviation over folds and seeds, pooled predictions, label efficiency."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.differences import ModelScores, estimate_difference
from ..evaluation.estimation import estimate_headline_metrics
from ..evaluation.intervals import Estimate
from ..evaluation.metrics import available_metric_names, classification_scores, headline_metric_names
from ..evaluation.prediction_table import Predictions, pool_folds
from .predictions import read_prediction_table, read_predictions
from .record import Centre, CentreSummary, CrossvalRun


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


def summarize_centres(
    root: Path,
    column: str,
    names: Sequence[str],
    runs: list[CrossvalRun],
    ordered: bool,
    selection_fraction: float,
    random_folds: Path | None = None,
) -> CentreSummary:
    """Estimates the scores of each centre, their mean, those of all images, and the gap to random folds.

    Args:
        root: folder of the cross-validation.
        names: centres in the order of the folds.
        runs: the runs with the largest fraction of the labels.
        random_folds: folder of a cross-validation of the same images with as many random folds and the same seeds.
    """
    folds, file_names, class_names = _read_folds(root, runs, ordered)
    centres = [
        Centre(
            name,
            number,
            len(fold.labels),
            None if fold.groups is None else len(np.unique(fold.groups)),
            [class_names[i] for i in np.flatnonzero(np.bincount(fold.labels, minlength=len(class_names)) == 0)],
            estimate_headline_metrics([fold]),
        )
        for number, (name, fold) in enumerate(zip(names, folds), 1)
    ]
    pooled, gap = replace(pool_folds(folds), macro_over_labels=False), None
    if random_folds is not None:
        others, other_names, _ = _read_folds(random_folds, runs, ordered)
        row_by_name = {name: row for row, name in enumerate(other_names)}
        other = replace(pool_folds(others), macro_over_labels=False).select(
            np.array([row_by_name[name] for name in file_names])
        )
        gap = _estimate_gap(ModelScores([other]), ModelScores([pooled]))
    mean = estimate_headline_metrics(folds)
    return CentreSummary(column, centres, selection_fraction, mean, estimate_headline_metrics([pooled]), gap)


def _estimate_gap(random_folds: ModelScores, centres: ModelScores) -> dict[str, Estimate]:
    gap = {
        name: estimate_difference(random_folds, centres, name) for name in headline_metric_names(centres.sample.ordered)
    }
    return {name: Estimate(one.value, one.interval(), one.reason) for name, one in gap.items() if one is not None}


def _read_folds(root: Path, runs: list[CrossvalRun], ordered: bool) -> tuple[list[Predictions], list[str], list[str]]:
    """Reads the validation predictions of each fold; returns them with all file names, and the class names."""
    by_fold = [
        read_predictions([root / run.folder for run in runs if run.fold == fold], "validation")
        for fold in sorted({run.fold for run in runs})
    ]
    predictions, file_names, class_names = zip(*by_fold)
    folds = [replace(fold, ordered=ordered, macro_over_labels=True) for fold in predictions]
    return folds, [name for names in file_names for name in names], class_names[0]


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
