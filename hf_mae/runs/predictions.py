"""The predictions of a run, an image a row, as CSV."""

import csv
from pathlib import Path

import numpy as np

from ..errors import UsageError
from ..evaluation.prediction_table import Predictions
from ..files.atomic import write_csv

SCORE_PREFIX = "score:"  # before the name of a class, in the head


def write_predictions(
    path: Path,
    file_names: list[str],
    scores: np.ndarray,
    labels: np.ndarray,
    names: list[str],
    groups: list[str] | None = None,
) -> None:
    """One row an image: its file, (group,) true and predicted class, the score of the latter, and every class's.

    Scores have nine significant digits, which tell every float32 from every other: fewer make ties, and rank scores
    (AUROC, average precision) computed from the file would come out otherwise.

    Args:
        scores: (images, classes), of `softmax`.
        labels: class ids (images,).
        names: of the classes.
        groups: patient or video of each image.
    """
    head = ["file_name", *(["group"] if groups else []), "label", "prediction", "score"]
    rows = []
    for index, (name, row, label) in enumerate(zip(file_names, scores, labels)):
        best = int(row.argmax())
        first = [name, groups[index]] if groups else [name]
        rows.append([*first, names[label], names[best], f"{row[best]:.9g}", *(f"{s:.9g}" for s in row)])
    write_csv(path, [*head, *(f"{SCORE_PREFIX}{name}" for name in names)], rows)


def read_prediction_rows(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    """The rows of a file of predictions, and the names of its classes.

    Raises:
        UsageError: it is missing, or another tool's.
    """
    if not path.is_file():
        raise UsageError(f"{path} is missing: the run did not come to its end, or its predictions were removed.")
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), reader.fieldnames or []
    names = [column.removeprefix(SCORE_PREFIX) for column in columns if column.startswith(SCORE_PREFIX)]
    lacking = [name for name in ("file_name", "label", "prediction") if name not in columns]
    if lacking or not names:
        raise UsageError(
            f"{path} is no file of predictions of hf_mae: it lacks {', '.join(lacking) or 'the scores of the classes'}."
        )
    return rows, names


def read_predictions(paths: list[Path]) -> tuple[Predictions, list[str], list[str]]:
    """Predictions of the same images by several runs, with file and class names.

    Args:
        paths: of `predictions_<split>.csv`.

    Raises:
        UsageError: a file is missing or another tool's, or the files are not of the same images.
    """
    whole = [read_prediction_rows(path) for path in paths]
    rows, names = whole[0]
    images = [(row["file_name"], row["label"]) for row in rows]
    predicted = []
    for path, (own, own_names) in zip(paths, whole):
        if own_names != names or [(row["file_name"], row["label"]) for row in own] != images:
            raise UsageError(f"{path} and {paths[0]} are not of the same images.")
        predicted.append(_parse_class_ids([row["prediction"] for row in own], names, path))
    groups = np.array([row["group"] for row in rows]) if rows and "group" in rows[0] else None
    labels = np.array(_parse_class_ids([label for _, label in images], names, paths[0]))
    scores = np.array([_parse_scores(own, names, path) for path, (own, _) in zip(paths, whole)])
    found = Predictions(labels, np.array(predicted), len(names), groups, scores)
    return found, [name for name, _ in images], names


def _parse_scores(rows: list[dict[str, str]], names: list[str], path: Path) -> np.ndarray:
    """(images, classes), each row summing to 1 (what is written has nine digits)."""
    try:
        scores = np.array([[float(row[SCORE_PREFIX + name]) for name in names] for row in rows])
    except (TypeError, ValueError):
        scores = np.array([np.nan])
    total = scores.sum(-1, keepdims=True)
    if not (np.isfinite(scores).all() and (scores >= 0).all() and (abs(total - 1) < 1e-3).all()):
        raise UsageError(f"{path} has scores that are no shares of 1: was it edited? Run the evaluation again.")
    shares: np.ndarray = scores / total
    return shares


def _parse_class_ids(class_names: list[str], known_names: list[str], path: Path) -> list[int]:
    ids = {name: index for index, name in enumerate(known_names)}
    if unknown := sorted({name for name in class_names if name not in ids}):
        raise UsageError(
            f"{path} has the class {unknown[0]}, and no scores of it (it has those of {', '.join(known_names)}): whoever "
            "renames a class by hand renames its column, too."
        )
    return [ids[name] for name in class_names]
