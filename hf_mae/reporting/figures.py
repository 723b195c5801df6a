"""Figures of a run, as PNG and SVG: drawn without pyplot, so without any state or display."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.text import Text
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from ..evaluation.metrics import CALIBRATION_BINS

MANY_CLASSES = 10  # curves of more are thin and grey, but for the worst


class PlainFigure(Figure):
    """A figure whose text is taken as it is: a class name with dollar signs is no mathematics."""

    def _take_text_as_it_is(self) -> None:
        for text in self.findobj(Text):
            text.set_parse_math(False)

    def tight_layout(self, **kwargs: Any) -> None:
        """As matplotlib's."""
        self._take_text_as_it_is()
        super().tight_layout(**kwargs)

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """As matplotlib's."""
        self._take_text_as_it_is()
        super().savefig(*args, **kwargs)


def _save(figure: Figure, path: Path) -> None:
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_name(path.name + suffix), dpi=130, bbox_inches="tight")


def figures_of_split(
    folder: Path, split: str, class_scores: np.ndarray, labels: np.ndarray, names: list[str], scores: dict[str, Any]
) -> None:
    """Everything that an evaluation shows: `<figure>_<split>.png` and `.svg`.

    Args:
        class_scores: (images, classes), each row summing to 1.
        labels: class ids (images,).
        scores: of `results.score_split`.
    """
    headline = f"macro F1 {100 * scores['macro_f1']:.1f} %, accuracy {100 * scores['accuracy']:.1f} %"
    title, matrix = f"{split}: {headline}", scores["confusion_matrix"]
    confusion_matrix(matrix, names, folder / f"confusion_matrix_{split}", title)
    confusion_matrix(matrix, names, folder / f"confusion_matrix_normalised_{split}", title, normalised=True)
    per_class_f1(scores["per_class"], folder / f"per_class_f1_{split}", title)
    curves = one_vs_rest_curves(class_scores, labels, names)
    if curves:
        roc(curves, scores["roc_auc"], folder / f"roc_{split}", split)
        precision_recall(curves, scores["average_precision"], folder / f"precision_recall_{split}", split)
    reliability(scores["calibration"], scores["ece"], folder / f"reliability_{split}", split)


def confusion_matrix(matrix: list[list[int]], names: list[str], path: Path, title: str, normalised=False) -> None:
    """Rows are the true classes, coloured by their share.

    Args:
        matrix: counts (classes, classes).
        path: file without its suffix.
        normalised: write the row's per cent into the cells, in place of counts.
    """
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = max(4.0, 0.42 * len(names) + 2)
    figure = PlainFigure(figsize=(size + 1, size))
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), [f"{name} ({n})" for name, n in zip(names, counts.sum(axis=1))])
    axes.set(xlabel="predicted", ylabel="true (images)", title=title)
    for row, column in zip(*np.nonzero(counts)):
        colour = "white" if shares[row, column] > 0.5 else "black"
        text = f"{100 * shares[row, column]:.0f}" if normalised else str(counts[row, column])
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    label = "share of the true class" + (" (cells: %)" if normalised else "")
    figure.colorbar(image, label=label, fraction=0.046, pad=0.04)
    _save(figure, path)


def per_class_f1(per_class: dict[str, dict[str, Any]], path: Path, title: str) -> None:
    """F1 of every class, best first, with its number of images; precision and recall as marks."""
    order = sorted(per_class, key=lambda name: per_class[name]["f1"])
    figure = PlainFigure(figsize=(7, 0.28 * len(order) + 1.6))
    axes = figure.subplots()
    rows = np.arange(len(order))
    axes.barh(rows, [100 * per_class[name]["f1"] for name in order], color="#9ecae1", label="F1")
    for key, mark in (("precision", "|"), ("recall", "x")):
        values = [100 * per_class[name][key] for name in order]
        axes.plot(values, rows, mark, color="#08306b", ms=7, label=key, clip_on=False)
    axes.set_yticks(rows, [f"{name} ({per_class[name]['support']})" for name in order])
    axes.set(xlim=(0, 100), ylim=(-0.6, len(order) - 0.4), xlabel="%", title=title)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _save(figure, path)


def one_vs_rest_curves(class_scores: np.ndarray, labels: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
    """ROC and precision-recall curves of every class against the rest, where the labels have both."""
    curves = []
    for index, name in enumerate(names):
        positive, values = labels == index, class_scores[:, index]
        if positive.all() or not positive.any():
            continue
        precision, recall, _ = precision_recall_curve(positive, values)
        curves.append(
            {
                "name": name,
                "roc": roc_curve(positive, values)[:2],
                "auc": roc_auc_score(positive, values),
                "pr": (recall, precision),
                "ap": average_precision_score(positive, values),
            }
        )
    return curves


def roc(curves: list[dict[str, Any]], macro: float | None, path: Path, title: str) -> None:
    """Receiver operating characteristic, one curve a class; `macro`: their mean area, None where undefined."""
    figure, axes = _curves(curves, "roc", "auc", "AUC")
    axes.plot([0, 1], [0, 1], ":", color="grey", lw=1)
    title = f"{title}: ROC, each class against the rest{_macro(macro, len(curves))}"
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title=title)
    _save(figure, path)


def precision_recall(curves: list[dict[str, Any]], macro: float | None, path: Path, title: str) -> None:
    """Precision over recall, one curve a class; `macro`: the mean average precision, None where undefined."""
    figure, axes = _curves(curves, "pr", "ap", "AP", drawstyle="steps-post")
    title = f"{title}: precision and recall, each class against the rest{_macro(macro, len(curves))}"
    axes.set(xlabel="recall", ylabel="precision", title=title)
    _save(figure, path)


def _macro(value: float | None, classes: int) -> str:
    over = "mean of both classes" if classes == 2 else "macro"
    return "" if value is None else f" ({over} {value:.3f})"


def _curves(curves: list[dict[str, Any]], curve: str, area: str, short: str, **style):
    """Curves with the worst first in the legend; of many classes, colour goes to the worst."""
    figure = PlainFigure(figsize=(5, 5))
    axes = figure.subplots()
    worst_first = sorted(curves, key=lambda item: item[area])
    for rank, item in enumerate(worst_first):
        coloured = rank < MANY_CLASSES
        colour = colormaps["tab10"](rank) if coloured else "#bbbbbb"
        axes.plot(
            *item[curve],
            color=colour,
            lw=1.4 if coloured else 0.8,
            zorder=3 if coloured else 2,
            label=f"{item['name']} ({short} {item[area]:.3f})",
            **style,
        )
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1.0))
    return figure, axes


def reliability(bins: list[dict[str, float]], ece: float, path: Path, title: str) -> None:
    """How often the predicted class is right, by its score; below, how many images there are at each score.

    Args:
        bins: of `metrics.calibration`.
    """
    figure = PlainFigure(figsize=(5, 5.6))
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    width = 1 / CALIBRATION_BINS
    filled = [item for item in bins if item["images"]]
    middles = [item["low"] + width / 2 for item in filled]
    axes.bar(middles, [item["accuracy"] for item in filled], width * 0.94, color="#9ecae1", label="right")
    axes.plot([0, 1], [0, 1], ":", color="grey", lw=1)
    scores = [item["score"] for item in filled]
    axes.plot(scores, [item["accuracy"] for item in filled], "o", color="#08306b", ms=4, label="mean score")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share that is right", title=f"{title}: calibration, ECE {ece:.3f}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper left")
    counts.bar(middles, [item["images"] for item in filled], width * 0.94, color="#bbbbbb")
    counts.set(xlabel="score of the predicted class", ylabel="images")
    _save(figure, path)


def learning_curves(log_history: list[dict[str, Any]], path: Path) -> None:
    """Training loss, evaluation loss and the headline scores over the epochs.

    Args:
        log_history: `trainer.state.log_history`.
        path: file without its suffix.
    """
    curves = {
        "training loss": [(log["epoch"], log["loss"]) for log in log_history if "loss" in log],
        "validation loss": [(log["epoch"], log["eval_loss"]) for log in log_history if "eval_loss" in log],
    }
    scores = {
        label: [(log["epoch"], 100 * log[f"eval_{name}"]) for log in log_history if f"eval_{name}" in log]
        for name, label in (("macro_f1", "macro F1"), ("accuracy", "accuracy"), ("mcc", "MCC"))
    }
    panels = [curves, scores] if any(scores.values()) else [curves]
    figure = PlainFigure(figsize=(5.5 * len(panels), 3.6))
    axes = figure.subplots(1, len(panels), squeeze=False)
    for panel, lines, label in zip(axes[0], panels, ("loss", "validation score (%)")):
        for name, points in lines.items():
            if points:
                panel.plot(*zip(*points), label=name, marker="o" if len(points) < 15 else None, ms=3)
        panel.set(xlabel="epoch", ylabel=label)
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend(frameon=False)
    figure.tight_layout()
    _save(figure, path)


def label_efficiency(curves: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Macro F1 over the number of training labels, mean and spread over runs, a line for each initialisation.

    Args:
        curves: name -> points of `crossval.label_efficiency`.
        path: file without its suffix.
    """
    figure = PlainFigure(figsize=(6, 4))
    axes = figure.subplots()
    for number, (name, points) in enumerate(curves.items()):
        labels = [point["images"] for point in points]
        mean = np.array([100 * point["macro_f1"]["mean"] for point in points])
        std = np.array([100 * point["macro_f1"]["std"] for point in points])
        (line,) = axes.plot(labels, mean, "o-", ms=4, color=colormaps["tab10"](number % 10), label=name)
        axes.fill_between(labels, mean - std, mean + std, color=line.get_color(), alpha=0.15, lw=0)
        for point in points:
            values = [100 * value for value in point["macro_f1"]["values"]]
            axes.plot([point["images"]] * len(values), values, ".", color=line.get_color(), ms=3, alpha=0.6)
    ticks = sorted({point["images"] for points in curves.values() for point in points})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="training labels", ylabel="macro F1 (%)", title="mean, and standard deviation over the runs")
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend(frameon=False)
    figure.tight_layout()
    _save(figure, path)


def scatter(points: np.ndarray, labels: np.ndarray, names: list[str], path: Path, title: str) -> None:
    """A map of images, coloured by class.

    Args:
        points: (images, 2).
        labels: class ids (images,).
        path: file without its suffix.
    """
    figure = PlainFigure(figsize=(6, 6))
    axes = figure.subplots()
    colours = colormaps["tab10" if len(names) <= 10 else "tab20"]
    markers = "osD"  # 20 colours do not tell 23 classes apart
    for index, name in enumerate(names):
        chosen = labels == index
        if chosen.any():
            x, y = points[chosen].T
            axes.scatter(
                x,
                y,
                s=9,
                color=colours(index % colours.N),
                marker=markers[index // colours.N],
                label=f"{name} ({chosen.sum()})",
                alpha=0.8,
                lw=0,
            )
    axes.set(xticks=[], yticks=[], title=title)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1.0), markerscale=2)
    _save(figure, path)
