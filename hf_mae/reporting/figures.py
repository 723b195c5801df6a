"""Figures of a run, as PNG (300 dpi) and PDF (vectors): drawn without pyplot, so without any state or display.

One style for all (`STYLE`): colours that colour-blind readers tell apart (Okabe and Ito), with line styles and marks so
that they are told apart in grey too, and letters of 6 to 8 points at the width of one column (85 mm) or two.
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

from ..errors import summarize_exception
from ..evaluation.confusion import TITLES
from ..evaluation.metrics import CALIBRATION_BINS
from ..files.atomic import atomic_write_file, is_disk_full_error

logger = logging.getLogger(__name__)
P = ParamSpec("P")
FALLBACK_FONTS = (
    *("Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans", "WenQuanYi Zen Hei"),
    *("Microsoft YaHei", "PingFang SC", "Hiragino Sans", "Noto Sans Arabic", "Noto Naskh Arabic", "Arial Unicode MS"),
    *("Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji", "Segoe UI Emoji", "Symbola"),
)
MAX_COLOURED_CURVES = 10  # curves of more are thin and grey, but for the worst
MAX_LABELLED_CLASSES = (
    60  # classes whose names, cells and marks can be read in one figure; of more, the worst are shown, or none
)
MAX_CURVE_POINTS = 500  # of a curve, at most: more than there are pixels to draw them
ONE_COLUMN, TWO_COLUMNS = 3.35, 7.0  # inches
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's
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
    "pdf.fonttype": 42,  # letters that an editor can change
    "figure.dpi": 300,
}


class PlainTextFigure(Figure):
    """A figure whose text is taken as it is: a class name with dollar signs is no mathematics, and one in another
    script is looked up in the fonts that have it."""

    def _disable_mathtext(self) -> None:
        for text in self.findobj(Text):
            text.set_parse_math(False)
            text.set_fontfamily(font_families())

    def tight_layout(self, **kwargs: Any) -> None:
        """As matplotlib's."""
        self._disable_mathtext()
        super().tight_layout(**kwargs)

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """As matplotlib's."""
        self._disable_mathtext()
        super().savefig(*args, **kwargs)


def truncate_text(text: str, length: int) -> str:
    """Text of so many letters at most."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def save_figure(figure: Figure, path: Path, dpi: int, full_page: bool = False) -> None:
    """Writes a figure whole, in the format of the name; letters that no font has are said once.

    Args:
        full_page: with its margins.
    """
    with warnings.catch_warnings(record=True) as said, atomic_write_file(path) as temporary:
        warnings.simplefilter("always")
        dated: dict[str, Any] = {"metadata": {"CreationDate": None}} if path.suffix == ".pdf" else {}
        figure.savefig(temporary, format=path.suffix[1:], dpi=dpi, bbox_inches=None if full_page else "tight", **dated)
    lacking = {str(entry.message) for entry in said if "missing from font" in str(entry.message)}
    if lacking and path.suffix == ".png":
        logger.warning(
            "%s lacks %d letters, which no font of this machine has (boxes stand for them): install fonts for them, "
            "such as Noto's.",
            path.name,
            len(lacking),
        )


def _save(figure: Figure, path: Path) -> None:
    for suffix in (".png", ".pdf"):
        save_figure(figure, path.with_name(path.name + suffix), dpi=300)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _line_style(number: int) -> dict[str, Any]:
    """Colour and line style of the so-many-eth line: 28 of them differ."""
    return {"color": _colour(number), "linestyle": LINE_STYLES[number // len(COLOURS) % len(LINE_STYLES)]}


@cache
def font_families() -> list[str]:
    """Fonts in the order in which they are asked for a letter: matplotlib's own, then those of this machine that have
    the letters of other scripts."""
    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]


def log_figure_errors(plot_function: Callable[P, None]) -> Callable[P, None]:
    """A figure in the one style; one that cannot be drawn is said, and the results beside it are there all the same."""

    @wraps(plot_function)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with rc_context(STYLE):
                plot_function(*args, **kwargs)
        except Exception as error:  # matplotlib raises whatever its parts do
            if is_disk_full_error(error):
                raise
            logger.warning("The figure %s could not be drawn (%s).", plot_function.__name__, summarize_exception(error))

    return drawn


@log_figure_errors
def plot_split_figures(
    folder: Path, split: str, class_scores: np.ndarray, labels: np.ndarray, names: list[str], scores: dict[str, Any]
) -> None:
    """Everything that an evaluation shows: `<figure>_<split>.png` and `.pdf`.

    Args:
        class_scores: (images, classes), each row summing to 1.
        labels: class ids (images,).
        scores: of `results.score_split`.
    """
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
    """Rows are the true classes, coloured by their share; of more than `LEGIBLE` classes without names and numbers.

    Args:
        matrix: counts (classes, classes).
        path: file without its suffix.
        normalised: write the row's per cent into the cells, in place of counts.
    """
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    legible = len(names) <= MAX_LABELLED_CLASSES
    size = min(2 * TWO_COLUMNS, max(2.2, 0.24 * len(names) + 1)) if legible else TWO_COLUMNS
    figure = PlainTextFigure(figsize=(size + 0.5, size))
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if legible:
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), [f"{name} ({n})" for name, n in zip(names, counts.sum(axis=1))])
        axes.set(xlabel="predicted", ylabel="true (images)", title=title)
        _write_cells(axes, counts, shares, normalised)
    else:
        many = f"{len(names)} classes, by number: too many for their names"
        axes.set(xlabel=f"predicted ({many})", ylabel="true", title=title)
    label = "share of the true class" + (" (cells: %)" if normalised else "")
    figure.colorbar(image, label=label, fraction=0.046, pad=0.04)
    _save(figure, path)


def _write_cells(axes: Any, counts: np.ndarray, shares: np.ndarray, normalised: bool) -> None:
    for row, column in zip(*np.nonzero(counts)):
        colour = "white" if shares[row, column] > 0.5 else "black"
        text = f"{100 * shares[row, column]:.0f}" if normalised else str(counts[row, column])
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=6)


@log_figure_errors
def plot_per_class_f1(per_class: dict[str, dict[str, Any]], path: Path, title: str) -> None:
    """F1 of every class, best first, with its number of images; precision and recall as marks.

    Of more than `LEGIBLE` classes the worst are shown.
    """
    order = sorted(per_class, key=lambda name: per_class[name]["f1"])[:MAX_LABELLED_CLASSES]
    if len(order) < len(per_class):
        title = f"{title}\nthe {len(order)} worst of {len(per_class)} classes"
    figure = PlainTextFigure(figsize=(ONE_COLUMN, 0.15 * len(order) + 0.8))
    axes = figure.subplots()
    rows = np.arange(len(order))
    axes.barh(rows, [100 * per_class[name]["f1"] for name in order], color=LIGHT, label="F1")
    for key, mark in (("precision", "|"), ("recall", "x")):
        values = [100 * per_class[name][key] for name in order]
        axes.plot(values, rows, mark, color=COLOURS[-1], ms=5, label=key, clip_on=False)
    axes.set_yticks(rows, [f"{name} ({per_class[name]['support']})" for name in order])
    axes.set(xlim=(0, 100), ylim=(-0.6, len(order) - 0.4), xlabel="%", title=title)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _save(figure, path)


def compute_one_vs_rest_curves(class_scores: np.ndarray, labels: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
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
                "roc": _subsample_curve(*roc_curve(positive, values)[:2]),
                "auc": roc_auc_score(positive, values),
                "pr": _subsample_curve(recall, precision),
                "ap": average_precision_score(positive, values),
            }
        )
    return curves


def _subsample_curve(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `POINTS` of a curve, with its ends."""
    if len(x) > MAX_CURVE_POINTS:
        kept = np.unique(np.linspace(0, len(x) - 1, MAX_CURVE_POINTS).round().astype(int))
        x, y = x[kept], y[kept]
    return x, y


@log_figure_errors
def plot_roc(curves: list[dict[str, Any]], macro: float | None, path: Path, title: str) -> None:
    """Receiver operating characteristic, one curve a class; `macro`: their mean area, None where undefined."""
    figure, axes = _plot_curves(curves, "roc", "auc", "AUC")
    axes.plot([0, 1], [0, 1], ":", color="grey", lw=1)
    title = f"{title}: ROC, each class against the rest{_format_macro(macro, len(curves))}"
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title=title)
    _save(figure, path)


@log_figure_errors
def plot_precision_recall(curves: list[dict[str, Any]], macro: float | None, path: Path, title: str) -> None:
    """Precision over recall, one curve a class; `macro`: the mean average precision, None where undefined."""
    figure, axes = _plot_curves(curves, "pr", "ap", "AP", drawstyle="steps-post")
    title = f"{title}: precision and recall, each class against the rest{_format_macro(macro, len(curves))}"
    axes.set(xlabel="recall", ylabel="precision", title=title)
    _save(figure, path)


def _format_macro(value: float | None, classes: int) -> str:
    over = "mean of both classes" if classes == 2 else "macro"
    return "" if value is None else f" ({over} {value:.3f})"


def _plot_curves(curves: list[dict[str, Any]], curve: str, area: str, area_label: str, **style):
    """Curves with the worst first in the legend; of many classes, colour goes to the worst, and of more than `LEGIBLE`
    only those are named."""
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
        axes.plot([], [], color=GREY, lw=0.6, label=f"{len(curves) - MAX_COLOURED_CURVES} classes more")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0))
    return figure, axes


@log_figure_errors
def plot_reliability_diagram(bins: list[dict[str, float]], ece: float, path: Path, title: str) -> None:
    """How often the predicted class is right, by its score; below, how many images there are at each score.

    Args:
        bins: of `metrics.calibration`.
    """
    figure = PlainTextFigure(figsize=(ONE_COLUMN, 1.12 * ONE_COLUMN))
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    width = 1 / CALIBRATION_BINS
    filled = [item for item in bins if item["images"]]
    middles = [item["low"] + width / 2 for item in filled]
    axes.bar(middles, [item["accuracy"] for item in filled], width * 0.94, color=LIGHT, label="right")
    axes.plot([0, 1], [0, 1], ":", color="grey", lw=1)
    scores = [item["score"] for item in filled]
    axes.plot(scores, [item["accuracy"] for item in filled], "o", color=COLOURS[-1], ms=2.5, label="mean score")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share that is right", title=f"{title}: calibration, ECE {ece:.3f}")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    counts.bar(middles, [item["images"] for item in filled], width * 0.94, color=GREY)
    counts.set(xlabel="score of the predicted class", ylabel="images")
    _save(figure, path)


@log_figure_errors
def plot_risk_coverage(rows: list[dict[str, float]], aurc: float, path: Path, title: str) -> None:
    """What is wrong among the images that are answered, if the least sure ones are left to a person.

    Args:
        rows: of `metrics.risk_coverage`.
    """
    figure = PlainTextFigure(figsize=(ONE_COLUMN, 0.8 * ONE_COLUMN))
    axes = figure.subplots()
    coverage, risk = ([100 * row[name] for row in rows] for name in ("coverage", "risk"))
    axes.plot(coverage, risk, "o-", color=COLOURS[-1], ms=2.5, lw=1)
    axes.set(xlim=(0, 102), ylim=(0, max(1.0, 1.1 * max(risk))), title=f"{title}: AURC {aurc:.3f}")
    axes.set(xlabel="surest images that are answered, %", ylabel="wrong among them, %")
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
    """The scores of the trials of a search over each setting.

    Args:
        points: by setting, of each trial its value, its score in per cent, and whether it was stopped early.
        log_scales: by setting, whether its axis is logarithmic.
        best_index: place of the best trial.
        metric: what the score is.
    """
    columns = 2 if len(points) == 4 else min(len(points), 3)
    lines = -(-len(points) // columns)
    figure = PlainTextFigure(figsize=(ONE_COLUMN * columns * 0.75, 2.2 * lines))
    axes = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for panel, (name, trials) in zip(axes.flat, points.items()):
        for stopped, label, style in ((False, "whole", {"marker": "o"}), (True, "stopped early", {"marker": "x"})):
            chosen = [(value, score) for value, score, early in trials if early == stopped]
            if chosen:
                panel.plot(*zip(*chosen), ls="", ms=3.5, color=_colour(int(stopped)), label=label, **style)
        panel.plot(*trials[best_index][:2], "*", ms=9, color=COLOURS[-1], label="best", zorder=3)
        panel.set(xlabel=name.replace("_", " "), xscale="log" if log_scales[name] else "linear")
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.grid(alpha=0.3)
    for row in axes:
        row[0].set_ylabel(f"{TITLES.get(metric, metric)} (%)")
    for panel in list(axes.flat)[len(points) :]:
        panel.set_axis_off()
    axes.flat[0].legend()
    figure.tight_layout()
    _save(figure, path)


@log_figure_errors
def plot_learning_curves(log_history: list[dict[str, Any]], path: Path) -> None:
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
    figure = PlainTextFigure(figsize=(ONE_COLUMN * len(panels), 2.3))
    axes = figure.subplots(1, len(panels), squeeze=False)
    for panel, lines, label in zip(axes[0], panels, ("loss", "validation score (%)")):
        for number, (name, points) in enumerate(lines.items()):
            if points:
                mark = {"marker": MARKERS[number], "ms": 2.5} if len(points) < 15 else {}
                panel.plot(*zip(*points), label=name, color=_colour(number), linestyle=LINE_STYLES[number], **mark)
        panel.set(xlabel="epoch", ylabel=label)
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend()
    figure.tight_layout()
    _save(figure, path)


@log_figure_errors
def plot_label_efficiency(curves: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Macro F1 over the number of training labels, mean and spread over runs, a line for each initialisation.

    Args:
        curves: name -> points of `crossval.label_efficiency`.
        path: file without its suffix.
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
    axes.set(xlabel="training labels", ylabel="macro F1 (%)", title="mean, and standard deviation over the runs")
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend()
    figure.tight_layout()
    _save(figure, path)


@log_figure_errors
def plot_scatter(points: np.ndarray, labels: np.ndarray, names: list[str], path: Path, title: str) -> None:
    """A map of images, coloured by class.

    Args:
        points: (images, 2).
        labels: class ids (images,).
        path: file without its suffix.
    """
    figure = PlainTextFigure(figsize=(ONE_COLUMN, ONE_COLUMN))
    axes = figure.subplots()
    for index, name in enumerate(names):
        chosen = labels == index
        if chosen.any():
            x, y = points[chosen].T
            axes.scatter(
                x,
                y,
                s=5,
                color=_colour(index),
                marker=MARKERS[index // len(COLOURS) % len(MARKERS)],  # colour and mark together tell 56 classes apart
                label=f"{name} ({chosen.sum()})" if len(names) <= MAX_LABELLED_CLASSES else None,
                alpha=0.8,
                lw=0,
            )
    axes.set(xticks=[], yticks=[], title=title)
    if len(names) <= MAX_LABELLED_CLASSES:
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), markerscale=2)
    else:
        axes.set_xlabel(f"{len(names)} classes: too many to name; colours repeat")
    _save(figure, path)


@log_figure_errors
def plot_decision_curves(curves: dict[str, Any], path: Path, title: str) -> None:
    """Net benefit over the threshold probability, a line for each run, beside treating all and treating none.

    Args:
        curves: name -> `evaluation.operating.DecisionCurve`, of the same images or at least the same prevalence.
        path: file without its suffix.
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
    """What became of the images: found, left out and why, and the splits.

    Args:
        cohort: of `data.study.study_of`.
        path: file without its suffix.
    """
    excluded = cohort["excluded"]
    rows = len(left_out) + 2
    figure = PlainTextFigure(figsize=(TWO_COLUMNS, 0.62 * rows + 0.4))
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(0, rows))
    found = cohort["total"] if cohort["total"] is not None else sum(one["images"] for one in cohort["splits"].values())
    _draw_box(axes, 0.3, rows - 0.5, f"found\n{found:,} images")
    for number, step in enumerate(left_out):
        height = rows - 1.5 - number
        _draw_arrow(axes, (0.3, height), (0.605, height))
        _draw_box(
            axes, 0.62, height, f"left out: {step['why']}\n{step['images']:,} image{'s' * (step['images'] > 1)}", "left"
        )
    _draw_arrow(axes, (0.3, rows - 0.72), (0.3, 1.06), head=False)
    count = len(cohort["splits"])
    places = [(number + 0.5) / count for number in range(count)]
    axes.plot([min([0.3, *places]), max([0.3, *places])], [1.06, 1.06], color="black", lw=0.6)
    for place, (name, held) in zip(places, cohort["splits"].items()):
        groups = f"\n{held['groups']:,} patients or videos" if held["groups"] else ""
        _draw_arrow(axes, (place, 1.06), (place, 0.76))
        _draw_box(axes, place, 0.45, f"{name}\n{held['images']:,} images{groups}")
    _save(figure, path)


def _draw_box(axes: Any, x: float, y: float, text: str, horizontal_alignment: str = "center") -> None:
    frame = {"boxstyle": "square,pad=0.4", "fc": "white", "ec": "black", "lw": 0.6}
    axes.text(x, y, text, ha=horizontal_alignment, va="center", bbox=frame)


def _draw_arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], head: bool = True) -> None:
    style = {"arrowstyle": "-|>" if head else "-", "lw": 0.6, "color": "black", "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)
