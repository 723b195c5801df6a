"""Figures of a run, as PNG (300 dpi) and PDF (vector graphics), drawn without pyplot and its global state.

All figures share one style (`STYLE`): colours for colour-blind readers (Okabe and Ito), line styles and markers that
distinguish curves in greyscale too, and text of 6 to 8 points at a width of one column (85 mm) or two.
"""

import logging
import warnings
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.text import Text
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from ..errors import summarize_exception, warn
from ..evaluation.metrics import CALIBRATION_BINS, display_scale
from ..evaluation.significance import compared_metric_names
from ..files.atomic import atomic_write_file, is_disk_full_error
from ..runs.record import FIGURES_DIR
from ..settings.metrics import METRICS, metric_title
from .messages import ReportingMessage
from .run_sentences import describe_exclusion

logger = logging.getLogger(__name__)
P = ParamSpec("P")
FALLBACK_FONTS = (
    *("Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans", "WenQuanYi Zen Hei"),
    *("Microsoft YaHei", "PingFang SC", "Hiragino Sans", "Noto Sans Arabic", "Noto Naskh Arabic", "Arial Unicode MS"),
    *("Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji", "Segoe UI Emoji", "Symbola"),
)
MAX_COLOURED_CURVES = 10  # if there are more curves, only the worst ones are coloured
MAX_LABELLED_CLASSES = 60  # if there are more classes, figures show the worst ones, or no names
MAX_CURVE_POINTS = 500  # more than the pixels that show a curve
ONE_COLUMN, TWO_COLUMNS = 3.35, 7.0  # inches
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
LINE_STYLES = ("-", "--", "-.", ":")
MARKERS = "osD^v<>P"
DARK, LIGHT, GREY = "#0072B2", "#9fcbe6", "#b0b0b0"
STYLE: Any = {
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.linewidth": 0.4,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.1,
    "pdf.fonttype": 42,  # text stays editable
    "figure.dpi": 300,
}


class PlainTextFigure(Figure):
    """A figure that shows text literally: dollar signs do not start mathtext, and characters of other scripts are taken
    from fonts that have them."""

    def _disable_mathtext(self) -> None:
        for text in self.findobj(Text):
            text.set_parse_math(False)
            text.set_fontfamily(font_families())

    def tight_layout(self, **kwargs: Any) -> None:
        """Calls `Figure.tight_layout` with the fonts and the literal text of this class."""
        self._disable_mathtext()
        super().tight_layout(**kwargs)

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """Calls `Figure.savefig` with the fonts and the literal text of this class."""
        self._disable_mathtext()
        super().savefig(*args, **kwargs)


def truncate_text(text: str, length: int) -> str:
    """Shortens a text to `length` characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def save_figure(figure: Figure, path: Path, dpi: int, full_page: bool = False) -> None:
    """Writes a figure atomically, in the format of the file name, and warns of characters that no font has.

    Args:
        full_page: keep the margins.
    """
    with warnings.catch_warnings(record=True) as caught, atomic_write_file(path) as temporary:
        warnings.simplefilter("always")
        undated: dict[str, Any] = {"metadata": {"CreationDate": None}} if path.suffix == ".pdf" else {}
        bbox = None if full_page else "tight"
        figure.savefig(temporary, format=path.suffix[1:], dpi=dpi, bbox_inches=bbox, **undated)
    missing = {str(entry.message) for entry in caught if "missing from font" in str(entry.message)}
    if missing and path.suffix == ".png":
        warn(logger, ReportingMessage.GLYPHS_MISSING, name=path.name, count=len(missing))


def _save(figure: Figure, path: Path) -> None:
    for suffix in (".png", ".pdf"):
        save_figure(figure, path.with_name(path.name + suffix), dpi=300)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _line_style(number: int) -> dict[str, Any]:
    """Returns the colour and line style of a curve; the first 28 differ."""
    return {"color": _colour(number), "linestyle": LINE_STYLES[number // len(COLOURS) % len(LINE_STYLES)]}


@cache
def font_families() -> list[str]:
    """Returns the fonts in order of preference: that of matplotlib, then the installed fonts of other scripts."""
    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]


def log_figure_errors(plot_function: Callable[P, None]) -> Callable[P, None]:
    """Decorates a plot function: it draws in the common style, and a failure is logged as a warning, so that the other
    results are written. A full disk still raises."""

    @wraps(plot_function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with rc_context(STYLE):
                plot_function(*args, **kwargs)
        except Exception as error:  # matplotlib raises exceptions of any class
            if is_disk_full_error(error):
                raise
            name = plot_function.__name__.removeprefix("plot_")
            warn(logger, ReportingMessage.FIGURE_FAILED, name=name, error=summarize_exception(error))

    return wrapper


@log_figure_errors
def plot_split_figures(
    folder: Path, split: str, class_scores: np.ndarray, labels: np.ndarray, names: list[str], scores: dict[str, Any]
) -> None:
    """Plots the figures of an evaluation: `figures/<figure>_<split>.png` and `.pdf`.

    Args:
        folder: the output folder.
        class_scores: (images, classes), each row sums to 1.
        labels: class ids (images,).
        names: class names.
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
        path: the file without its suffix.
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
    _save(figure, path)


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
    _save(figure, path)


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
    _save(figure, path)


@log_figure_errors
def plot_precision_recall(curves: list[dict[str, Any]], macro: float | None, path: Path, title: str) -> None:
    """Plots one precision-recall curve per class; `macro` is the mean average precision, None if it is undefined."""
    figure, axes = _plot_curves(curves, "pr", "ap", "AP", drawstyle="steps-post")
    title = f"{title}: precision-recall, one class against the rest{_format_macro(macro, len(curves))}"
    axes.set(xlabel="recall", ylabel="precision", title=title)
    _save(figure, path)


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
            **(_line_style(rank) if coloured else {"color": GREY}),
            lw=1.1 if coloured else 0.6,
            zorder=3 if coloured else 2,
            label=f"{item['name']} ({area_label} {item[area]:.3f})"
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
    """Plots a reliability diagram: accuracy by score of the predicted class, and below it the number of images.

    Args:
        bins: `calibration` of `evaluation.metrics.expected_calibration_error`.
    """
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
    _save(figure, path)


@log_figure_errors
def plot_risk_coverage(rows: list[dict[str, float]], aurc: float, path: Path, title: str) -> None:
    """Plots the error rate among the images with the highest scores over their fraction (selective classification).

    Args:
        rows: `risk_coverage` of `evaluation.metrics.risk_coverage`.
    """
    figure = PlainTextFigure(figsize=(ONE_COLUMN, 0.8 * ONE_COLUMN))
    axes = figure.subplots()
    coverage, risk = ([100 * row[name] for row in rows] for name in ("coverage", "risk"))
    axes.plot(coverage, risk, "o-", color=COLOURS[-1], ms=2.5, lw=1)
    axes.set(xlim=(0, 102), ylim=(0, max(1.0, 1.1 * max(risk))), title=f"{title}: AURC {aurc:.3f}")
    axes.set(xlabel="coverage: images with the highest scores, %", ylabel="risk: errors among them, %")
    axes.grid(alpha=0.3)
    _save(figure, path)


@log_figure_errors
def plot_search_trials(
    points: dict[str, list[tuple[float, float, bool]]],
    log_scales: dict[str, bool],
    best_index: int,
    metric: str,
    path: Path,
) -> None:
    """Plots the scores of the trials of a search over each setting.

    Args:
        points: by setting, one (value, score, whether it was stopped early) per trial.
        log_scales: by setting, whether its axis is logarithmic.
        best_index: index of the best trial.
        metric: name of the score.
        path: the file without its suffix.
    """
    columns = 2 if len(points) == 4 else min(len(points), 3)
    lines = -(-len(points) // columns)
    figure = PlainTextFigure(figsize=(ONE_COLUMN * columns * 0.75, 2.2 * lines))
    axes = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for panel, (name, trials) in zip(axes.flat, points.items()):
        for stopped, label, style in ((False, "completed", {"marker": "o"}), (True, "stopped early", {"marker": "x"})):
            selected = [(value, score) for value, score, early in trials if early == stopped]
            if selected:
                panel.plot(*zip(*selected), ls="", ms=3.5, color=_colour(int(stopped)), label=label, **style)
        panel.plot(*trials[best_index][:2], "*", ms=9, color=COLOURS[-1], label="best", zorder=3)
        panel.set(xlabel=name.replace("_", " "), xscale="log" if log_scales[name] else "linear")
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.grid(alpha=0.3)
    for row in axes:
        row[0].set_ylabel(metric_title(metric) + (" (%)" if display_scale(metric) == 100 else ""))
    for panel in list(axes.flat)[len(points) :]:
        panel.set_axis_off()
    axes.flat[0].legend()
    figure.tight_layout()
    _save(figure, path)


@log_figure_errors
def plot_learning_curves(log_history: list[dict[str, Any]], path: Path) -> None:
    """Plots the training loss, the validation loss and the validation scores over the epochs.

    Args:
        log_history: `trainer.state.log_history`.
        path: the file without its suffix.
    """
    curves = {
        "training loss": [(log["epoch"], log["loss"]) for log in log_history if "loss" in log],
        "validation loss": [(log["epoch"], log["eval_loss"]) for log in log_history if "eval_loss" in log],
    }
    scores = {
        METRICS[name].title: [(log["epoch"], 100 * log[f"eval_{name}"]) for log in log_history if f"eval_{name}" in log]
        for name in compared_metric_names(ordered=False)
    }
    panels = [curves, scores] if any(scores.values()) else [curves]
    figure = PlainTextFigure(figsize=(ONE_COLUMN * len(panels), 2.3))
    axes = figure.subplots(1, len(panels), squeeze=False)
    for panel, lines, label in zip(axes[0], panels, ("loss", "validation score (%)")):
        for number, (name, points) in enumerate(lines.items()):
            if points:
                marker = {"marker": MARKERS[number], "ms": 2.5} if len(points) < 15 else {}
                panel.plot(*zip(*points), label=name, color=_colour(number), linestyle=LINE_STYLES[number], **marker)
        panel.set(xlabel="epoch", ylabel=label)
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend()
    figure.tight_layout()
    _save(figure, path)


@log_figure_errors
def plot_label_efficiency(curves: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Plots the macro F1 over the number of training labels, one curve per initialisation.

    Args:
        curves: name -> points of `reporting.crossval.label_efficiency_curve`.
        path: the file without its suffix.
    """
    figure = PlainTextFigure(figsize=(ONE_COLUMN, 2.4))
    axes = figure.subplots()
    for number, (name, points) in enumerate(curves.items()):
        labels = [point["images"] for point in points]
        mean = np.array([100 * point["macro_f1"]["mean"] for point in points])
        std = np.array([100 * point["macro_f1"]["std"] for point in points])
        (line,) = axes.plot(
            labels, mean, marker=MARKERS[number % len(MARKERS)], ms=3, label=name, **_line_style(number)
        )
        axes.fill_between(labels, mean - std, mean + std, color=line.get_color(), alpha=0.15, lw=0)
        for point in points:
            values = [100 * value for value in point["macro_f1"]["values"]]
            axes.plot([point["images"]] * len(values), values, ".", color=line.get_color(), ms=3, alpha=0.6)
    ticks = sorted({point["images"] for points in curves.values() for point in points})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="training labels", ylabel="macro F1 (%)", title="mean and standard deviation over runs")
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend()
    figure.tight_layout()
    _save(figure, path)


@log_figure_errors
def plot_scatter(points: np.ndarray, labels: np.ndarray, names: list[str], path: Path, title: str) -> None:
    """Plots points in two dimensions, coloured by class.

    Args:
        points: (images, 2).
        labels: class ids (images,).
        names: class names.
        path: the file without its suffix.
    """
    figure = PlainTextFigure(figsize=(ONE_COLUMN, ONE_COLUMN))
    axes = figure.subplots()
    for index, name in enumerate(names):
        selected = labels == index
        if selected.any():
            x, y = points[selected].T
            axes.scatter(
                x,
                y,
                s=5,
                color=_colour(index),
                marker=MARKERS[index // len(COLOURS) % len(MARKERS)],  # colour and marker distinguish 56 classes
                label=f"{name} ({selected.sum()})" if len(names) <= MAX_LABELLED_CLASSES else None,
                alpha=0.8,
                lw=0,
            )
    axes.set(xticks=[], yticks=[], title=title)
    if len(names) <= MAX_LABELLED_CLASSES:
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), markerscale=2)
    else:
        axes.set_xlabel(f"{len(names)} classes; too many for a legend; colours repeat")
    _save(figure, path)


@log_figure_errors
def plot_decision_curves(curves: dict[str, Any], path: Path, title: str) -> None:
    """Plots the net benefit over the threshold probability, one curve per run, with those of treating all and none.

    Args:
        curves: name -> `evaluation.operating_points.DecisionCurve`, of images with the same prevalence.
        path: the file without its suffix.
    """
    figure = PlainTextFigure(figsize=(ONE_COLUMN, 2.5))
    axes = figure.subplots()
    for number, (name, curve) in enumerate(curves.items()):
        (line,) = axes.plot(curve.thresholds, curve.net_benefit, label=name, **_line_style(number))
        if all(ends is not None for ends in curve.intervals):
            low, high = zip(*curve.intervals)
            axes.fill_between(curve.thresholds, low, high, color=line.get_color(), alpha=0.15, lw=0)
    first = next(iter(curves.values()))
    axes.plot(first.thresholds, first.treat_all, color="#606060", lw=0.8, label="all positive")
    axes.axhline(0, color="#000000", lw=0.6, label="none positive")
    top = max(max(curve.net_benefit) for curve in curves.values())
    axes.set(xlim=(0, 1), ylim=(-0.15 * max(top, 0.05), 1.15 * max(top, 0.05)))
    axes.set(xlabel="threshold probability", ylabel="net benefit", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    _save(figure, path)


@log_figure_errors
def plot_flow_diagram(cohort: dict[str, Any], path: Path) -> None:
    """Plots the flow of the images: found, excluded with reasons, and split.

    Args:
        cohort: result of `data.cohort.describe_cohort`.
        path: the file without its suffix.
    """
    steps, splits = cohort["excluded"], cohort["splits"]
    rows = len(steps) + 2
    figure = PlainTextFigure(figsize=(TWO_COLUMNS, 0.62 * rows + 0.4))
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(0, rows))
    total = cohort["total"] if cohort["total"] is not None else sum(entry["images"] for entry in splits.values())
    _draw_box(axes, 0.3, rows - 0.5, f"found\n{total:,} images")
    for number, step in enumerate(steps):
        height = rows - 1.5 - number
        _draw_arrow(axes, (0.3, height), (0.605, height))
        text = f"excluded: {describe_exclusion(step)}\n{step['images']:,} image{'s' * (step['images'] > 1)}"
        _draw_box(axes, 0.62, height, text, "left")
    _draw_arrow(axes, (0.3, rows - 0.72), (0.3, 1.06), head=False)
    positions = [(number + 0.5) / len(splits) for number in range(len(splits))]
    axes.plot([min([0.3, *positions]), max([0.3, *positions])], [1.06, 1.06], color="black", lw=0.6)
    for position, (name, entry) in zip(positions, splits.items()):
        groups = f"\n{entry['groups']:,} patients or videos" if entry["groups"] else ""
        _draw_arrow(axes, (position, 1.06), (position, 0.76))
        _draw_box(axes, position, 0.45, f"{name}\n{entry['images']:,} images{groups}")
    _save(figure, path)


def _draw_box(axes: Any, x: float, y: float, text: str, horizontal_alignment: str = "center") -> None:
    frame = {"boxstyle": "square,pad=0.4", "fc": "white", "ec": "black", "lw": 0.6}
    axes.text(x, y, text, ha=horizontal_alignment, va="center", bbox=frame)


def _draw_arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], head: bool = True) -> None:
    style = {"arrowstyle": "-|>" if head else "-", "lw": 0.6, "color": "black", "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)
