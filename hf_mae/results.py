"""What an evaluation leaves behind: scores, predictions, figures, and the table on the screen."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from . import figures
from .metrics import HEADLINE, TITLES, ClassificationMetrics, calibration, ranking_scores, zero_division_notes


def softmax(logits: np.ndarray) -> np.ndarray:
    """Scores (images, classes) in float64, as `pipeline("image-classification")` reports them."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponents = np.exp(shifted)
    return exponents / exponents.sum(axis=-1, keepdims=True)


def score_split(logits: np.ndarray, labels: np.ndarray, names: list[str]) -> dict[str, Any]:
    """`classification_scores`, `ranking_scores` and `calibration` of `metrics` together."""
    scores = ClassificationMetrics().compute(predictions=logits.argmax(-1), references=labels, label_names=names)
    class_scores = softmax(logits)
    return scores | ranking_scores(class_scores, labels, names) | calibration(class_scores, labels)


def write_predictions(
    path: Path,
    file_names: list[str],
    scores: np.ndarray,
    labels: np.ndarray,
    names: list[str],
    groups: list[str] | None = None,
) -> None:
    """One row an image: its file, (group,) true and predicted class, the score of the latter, and every class's.

    Args:
        scores: (images, classes), of `softmax`.
    """
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        head = ["file_name", *(["group"] if groups else []), "label", "prediction", "score"]
        writer.writerow([*head, *(f"score:{name}" for name in names)])
        for index, (name, row, label) in enumerate(zip(file_names, scores, labels)):
            best = int(row.argmax())
            first = [name, groups[index]] if groups else [name]
            writer.writerow([*first, names[label], names[best], f"{row[best]:.6f}", *(f"{s:.6f}" for s in row)])


def write_split(
    folder: Path,
    split: str,
    images,
    logits: np.ndarray,
    labels: np.ndarray,
    names: list[str],
) -> dict:
    """Writes `predictions_<split>.csv` and the figures; returns the split's scores.

    Args:
        images: `EvaluationImages`, whose `file_names` and `groups` go with the rows of `logits`.
    """
    scores, class_scores = score_split(logits, labels, names), softmax(logits)
    path = folder / f"predictions_{split}.csv"
    write_predictions(path, images.file_names, class_scores, labels, names, images.groups)
    figures.figures_of_split(folder, split, class_scores, labels, names, scores)
    return scores


def table(scores_by_split: dict[str, dict]) -> str:
    """The headline scores in per cent, a row for each split, and what was counted as 0."""
    width = max(len("split"), *(len(split) for split in scores_by_split))
    lines = [f"{'split':<{width}}  images  " + "  ".join(f"{TITLES[name]:>15}" for name in HEADLINE)]
    for split, scores in scores_by_split.items():
        cells = "  ".join(f"{100 * scores[name]:15.2f}" for name in HEADLINE)
        lines.append(f"{split:<{width}}  {scores['num_images']:6d}  {cells}")
    for split, scores in scores_by_split.items():
        lines += [f"{split}: {note}" for note in zero_division_notes(scores)]
    return "\n".join(lines)


def write_json(path: Path, values: Any) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
    temporary.replace(path)
