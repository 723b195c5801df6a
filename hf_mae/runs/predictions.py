"""Prediction tables of a run: CSV files with one row per image."""

import csv
from pathlib import Path

import numpy as np

from ..errors import UsageError
from ..evaluation.prediction_table import Predictions
from ..files.atomic import write_csv
from .messages import RunMessage

SCORE_PREFIX = "score:"  # of the column of each class


def write_predictions(
    path: Path,
    file_names: list[str],
    scores: np.ndarray,
    labels: np.ndarray,
    names: list[str],
    groups: list[str] | None = None,
) -> None:
    """Writes one row per image: file, (group,) true class, predicted class and its score, and the score of every class.

    Scores have nine significant digits, which distinguish all float32 values. Fewer digits would create ties and change
    rank-based metrics (AUROC, average precision) that are computed from the file.

    Args:
        scores: softmax probabilities (images, classes).
        labels: class ids (images,).
        names: class names.
        groups: patient or video of each image.
    """
    columns = ["file_name", *(["group"] if groups else []), "label", "prediction", "score"]
    rows = []
    for index, (name, row, label) in enumerate(zip(file_names, scores, labels)):
        best = int(row.argmax())
        first = [name, groups[index]] if groups else [name]
        rows.append([*first, names[label], names[best], f"{row[best]:.9g}", *(f"{s:.9g}" for s in row)])
    write_csv(path, [*columns, *(f"{SCORE_PREFIX}{name}" for name in names)], rows)


def read_prediction_rows(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Reads the rows of a prediction table, and the class names.

    Raises:
        UsageError: If the file or a required column is missing.
    """
    if not path.is_file():
        raise UsageError(RunMessage.PREDICTIONS_MISSING, path=path)
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), reader.fieldnames or []
    names = [column.removeprefix(SCORE_PREFIX) for column in columns if column.startswith(SCORE_PREFIX)]
    if missing := [name for name in ("file_name", "label", "prediction") if name not in columns]:
        raise UsageError(RunMessage.PREDICTION_COLUMNS_MISSING, path=path, columns=missing)
    if not names:
        raise UsageError(RunMessage.SCORE_COLUMNS_MISSING, path=path)
    return rows, names


def read_predictions(paths: list[Path]) -> tuple[Predictions, list[str], list[str]]:
    """Reads the predictions of the same images by several runs; returns them with file and class names.

    Args:
        paths: files `predictions_<split>.csv`.

    Raises:
        UsageError: If a file is missing or invalid, or the files do not contain the same images.
    """
    tables = [read_prediction_rows(path) for path in paths]
    rows, names = tables[0]
    images = [(row["file_name"], row["label"]) for row in rows]
    predicted = []
    for path, (table, table_names) in zip(paths, tables):
        if table_names != names or [(row["file_name"], row["label"]) for row in table] != images:
            raise UsageError(RunMessage.PREDICTIONS_OF_OTHER_IMAGES, path=path, first=paths[0])
        predicted.append(_parse_class_ids([row["prediction"] for row in table], names, path))
    groups = np.array([row["group"] for row in rows]) if rows and "group" in rows[0] else None
    labels = np.array(_parse_class_ids([label for _, label in images], names, paths[0]))
    scores = np.array([_parse_scores(table, names, path) for path, (table, _) in zip(paths, tables)])
    predictions = Predictions(labels, np.array(predicted), len(names), groups, scores)
    return predictions, [name for name, _ in images], names


def _parse_scores(rows: list[dict[str, str]], names: list[str], path: Path) -> np.ndarray:
    """Parses scores (images, classes), normalized to a sum of 1, because the file has nine digits."""
    try:
        scores = np.array([[float(row[SCORE_PREFIX + name]) for name in names] for row in rows])
    except (TypeError, ValueError):
        scores = np.array([np.nan])
    total = scores.sum(-1, keepdims=True)
    if not (np.isfinite(scores).all() and (scores >= 0).all() and (abs(total - 1) < 1e-3).all()):
        raise UsageError(RunMessage.SCORES_INVALID, path=path)
    normalized: np.ndarray = scores / total
    return normalized


def _parse_class_ids(class_names: list[str], known_names: list[str], path: Path) -> list[int]:
    ids = {name: index for index, name in enumerate(known_names)}
    if unknown := sorted({name for name in class_names if name not in ids}):
        raise UsageError(RunMessage.SCORES_OF_CLASS_MISSING, path=path, name=unknown[0], known=known_names)
    return [ids[name] for name in class_names]
