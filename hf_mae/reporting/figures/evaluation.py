"""Figures of the evaluation of a split. Paths are without a suffix."""

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from ...evaluation.metrics import CALIBRATION_BINS
from ...runs.record import FIGURES_DIR
from . import style
from .style import (
    COLOURS,
    GREY,
    LIGHT,
    MAX_LABELLED_CLASSES,
    ONE_COLUMN,
    TWO_COLUMNS,
    PlainTextFigure,
    legend_label,
    line_style,
    log_figure_errors,
)

MAX_COLOURED_CURVES = 10  # if there are more curves, only the worst ones are coloured
MAX_CURVE_POINTS = 500  # more than the pixels that show a curve


@log_figure_errors
def plot_split_figures(
    folder: Path, split: str, class_scores: np.ndarray, labels: np.ndarray, names: list[str], scores: dict[str, Any]
) -> None:
    """Plots the figures of an evaluation: `figures/<figure>_<split>.png` and `.pdf`.

    Args:
        class_scores: (images, classes), each row sums to 1.
        labels: class ids (images,).
        scores: result of `evaluation.metrics.score_split`.
    """
    folder = folder / FIGURES_DIR
    headline = f"macro F1 {100 * scores['macro_f1']:.1f} %, accuracy {100 * scores['accuracy']:.1f} %"
    title, matrix = f"{split}: {headline}", scores["confusion_matrix"]
    plot_confusion_matrix(matrix, names, folder / f"confusion_matrix_{split}", title)
    plot_confusion_matrix(matrix, names, folder / f"confusion_matrix_normalised_{split}", title, normalised=True)
    plot_per_class_f1(scores["per_class"], folder / f"per_class_f1_{split}", title)
    curves = compute_one_vs_rest_curves(class_scores, labels, names)
    if curves:
        plot_roc(curves, scores["roc_auc"], folder / f"roc_{split}", split)
        plot_precision_recall(curves, scores["average_precision"], folder / f"precision_recall_{split}", split)
    plot_reliability_diagram(scores["calibration"], scores["ece"], folder / f"reliability_{split}", split)
    plot_risk_coverage(scores["risk_coverage"], scores["aurc"], folder / f"risk_coverage_{split}", split)


@log_figure_errors
def plot_confusion_matrix(matrix: list[list[int]], names: list[str], path: Path, title: str, normalised=False) -> None:
    """Plots a confusion matrix; rows are true classes, colours are fractions of a row.

    More than `MAX_LABELLED_CLASSES` classes are shown without names and numbers.

    Args:
        matrix: counts (classes, classes).
        normalised: show per cent of the row in the cells instead of counts.
    """
    counts = np.asarray(matrix)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    legible = len(names) <= MAX_LABELLED_CLASSES
    size = min(2 * TWO_COLUMNS, max(2.2, 0.24 * len(names) + 1)) if legible else TWO_COLUMNS
    figure = PlainTextFigure(figsize=(size + 0.5, size))
    axes = figure.subplots()
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    if legible:
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), [f"{name} ({n})" for name, n in zip(names, counts.sum(axis=1))])
        axes.set(xlabel="predicted", ylabel="true (images)", title=title)
        _write_cells(axes, counts, fractions, normalised)
    else:
        note = f"{len(names)} classes by number; too many for names"
        axes.set(xlabel=f"predicted ({note})", ylabel="true", title=title)
    label = "fraction of the true class" + (" (cells: %)" if normalised else "")
    figure.colorbar(image, label=label, fraction=0.046, pad=0.04)
    style.save(figure, path)


def _write_cells(axes: Any, counts: np.ndarray, fractions: np.ndarray, normalised: bool) -> None:
    for row, column in zip(*np.nonzero(counts)):
        colour = "white" if fractions[row, column] > 0.5 else "black"
        text = f"{100 * fractions[row, column]:.0f}" if normalised else str(counts[row, column])
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=6)


@log_figure_errors
def plot_per_class_f1(per_class: dict[str, dict[str, Any]], path: Path, title: str) -> None:
    """Plots the F1 of each class with its number of images, best first; markers show precision and recall.

    Of more than `MAX_LABELLED_CLASSES` classes, the worst are shown.
    """
    order = sorted(per_class, key=lambda name: per_class[name]["f1"])[:MAX_LABELLED_CLASSES]
    if len(order) < len(per_class):
        title = f"{title}\nthe {len(order)} worst of {len(per_class)} classes"
    figure = PlainTextFigure(figsize=(ONE_COLUMN, 0.15 * len(order) + 0.8))
    axes = figure.subplots()
    rows = np.arange(len(order))
    axes.barh(rows, [100 * per_class[name]["f1"] for name in order], color=LIGHT, label="F1")
    for key, marker in (("precision", "|"), ("recall", "x")):
        values = [100 * per_class[name][key] for name in order]
        axes.plot(values, rows, marker, color=COLOURS[-1], ms=5, label=key, clip_on=False)
    axes.set_yticks(rows, [f"{name} ({per_class[name]['support']})" for name in order])
    axes.set(xlim=(0, 100), ylim=(-0.6, len(order) - 0.4), xlabel="%", title=title)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    style.save(figure, path)


def compute_one_vs_rest_curves(class_scores: np.ndarray, labels: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
    """Computes the ROC and precision-recall curves of each class against the rest, for classes that some but not all
    images have."""
    curves = []
    for index, name in enumerate(names):
        positive, values = labels == index, class_scores[:, index]
        if positive.all() or not positive.any():
            continue
        precision, recall, _ = precision_recall_curve(positive, values)
        curves.append(
            {
                "name": name,
                "roc": _subsample_curve(*roc_curve(positive, values)[:2]),
                "auc": roc_auc_score(positive, values),
                "pr": _subsample_curve(recall, precision),
                "ap": average_precision_score(positive, values),
            }
        )
    return curves


def _subsample_curve(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reduces a curve to at most `MAX_CURVE_POINTS` points, including its ends."""
    if len(x) > MAX_CURVE_POINTS:
        index = np.unique(np.linspace(0, len(x) - 1, MAX_CURVE_POINTS).round().astype(int))
        x, y = x[index], y[index]
    return x, y


@log_figure_errors
def plot_roc(curves: list[dict[str, Any]], macro: float | None, path: Path, title: str) -> None:
    """Plots one ROC curve per class; `macro` is the mean area, None if it is undefined."""
    figure, axes = _plot_curves(curves, "roc", "auc", "AUC")
    axes.plot([0, 1], [0, 1], ":", color="grey", lw=1)
    title = f"{title}: ROC, one class against the rest{_format_macro(macro, len(curves))}"
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title=title)
    style.save(figure, path)


@log_figure_errors
def plot_precision_recall(curves: list[dict[str, Any]], macro: float | None, path: Path, title: str) -> None:
    """Plots one precision-recall curve per class; `macro` is the mean average precision, None if it is undefined."""
    figure, axes = _plot_curves(curves, "pr", "ap", "AP", drawstyle="steps-post")
    title = f"{title}: precision-recall, one class against the rest{_format_macro(macro, len(curves))}"
    axes.set(xlabel="recall", ylabel="precision", title=title)
    style.save(figure, path)


def _format_macro(value: float | None, classes: int) -> str:
    over = "mean of both classes" if classes == 2 else "macro"
    return "" if value is None else f" ({over} {value:.3f})"


def _plot_curves(curves: list[dict[str, Any]], curve: str, area: str, area_label: str, **style):
    """Plots curves, the worst first in the legend. Only the worst `MAX_COLOURED_CURVES` are coloured; of more than
    `MAX_LABELLED_CLASSES` classes, only those are named."""
    figure = PlainTextFigure(figsize=(ONE_COLUMN, ONE_COLUMN))
    axes = figure.subplots()
    worst_first = sorted(curves, key=lambda item: item[area])
    for rank, item in enumerate(worst_first):
        coloured = rank < MAX_COLOURED_CURVES
        axes.plot(
            *item[curve],
            **(line_style(rank) if coloured else {"color": GREY}),
            lw=1.1 if coloured else 0.6,
            zorder=3 if coloured else 2,
            label=legend_label(f"{item['name']} ({area_label} {item[area]:.3f})")
            if coloured or len(curves) <= MAX_LABELLED_CLASSES
            else None,
            **style,
        )
    if len(curves) > MAX_LABELLED_CLASSES:
        axes.plot([], [], color=GREY, lw=0.6, label=f"{len(curves) - MAX_COLOURED_CURVES} other classes")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0))
    return figure, axes


@log_figure_errors
def plot_reliability_diagram(bins: list[dict[str, float]], ece: float, path: Path, title: str) -> None:
    """Plots the accuracy by score of the predicted class in the `calibration` bins, above the number of images."""
    figure = PlainTextFigure(figsize=(ONE_COLUMN, 1.12 * ONE_COLUMN))
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    width = 1 / CALIBRATION_BINS
    filled = [item for item in bins if item["images"]]
    middles = [item["low"] + width / 2 for item in filled]
    axes.bar(middles, [item["accuracy"] for item in filled], width * 0.94, color=LIGHT, label="accuracy")
    axes.plot([0, 1], [0, 1], ":", color="grey", lw=1)
    scores = [item["score"] for item in filled]
    axes.plot(scores, [item["accuracy"] for item in filled], "o", color=COLOURS[-1], ms=2.5, label="mean score")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy", title=f"{title}: calibration, ECE {ece:.3f}")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    counts.bar(middles, [item["images"] for item in filled], width * 0.94, color=GREY)
    counts.set(xlabel="score of the predicted class", ylabel="images")
    style.save(figure, path)


@log_figure_errors
def plot_risk_coverage(rows: list[dict[str, float]], aurc: float, path: Path, title: str) -> None:
    """Plots the error rate among the images with the highest scores over their fraction (`metrics.risk_coverage`)."""
    figure = PlainTextFigure(figsize=(ONE_COLUMN, 0.8 * ONE_COLUMN))
    axes = figure.subplots()
    coverage, risk = ([100 * row[name] for row in rows] for name in ("coverage", "risk"))
    axes.plot(coverage, risk, "o-", color=COLOURS[-1], ms=2.5, lw=1)
    axes.set(xlim=(0, 102), ylim=(0, max(1.0, 1.1 * max(risk))), title=f"{title}: AURC {aurc:.3f}")
    axes.set(xlabel="coverage: images with the highest scores, %", ylabel="risk: errors among them, %")
    axes.grid(alpha=0.3)
    style.save(figure, path)
