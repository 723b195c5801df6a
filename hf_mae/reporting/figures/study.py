"""Figures of a study: flow of the images, decision curves, maps of features. Paths are without a suffix."""

from pathlib import Path
from typing import Any

import numpy as np

from ...data.cohort import Cohort
from ...evaluation.recalibration import CalibrationCurve
from ...runs.record import CentreSummary
from ...settings.metrics import METRICS
from ..run_sentences import describe_exclusion
from . import style
from .style import (
    COLOURS,
    MARKERS,
    MAX_LABELLED_CLASSES,
    ONE_COLUMN,
    TWO_COLUMNS,
    PlainTextFigure,
    colour,
    legend_label,
    line_style,
    log_figure_errors,
    truncate_text,
)

MAX_PANEL_COLUMNS = 5


@log_figure_errors
def plot_scatter(points: np.ndarray, labels: np.ndarray, names: list[str], path: Path, title: str) -> None:
    """Plots points (images, 2) in two dimensions, coloured by class id (images,)."""
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
                color=colour(index),
                marker=MARKERS[index // len(COLOURS) % len(MARKERS)],  # colour and marker distinguish 56 classes
                label=legend_label(f"{name} ({selected.sum()})") if len(names) <= MAX_LABELLED_CLASSES else None,
                alpha=0.8,
                lw=0,
            )
    axes.set(xticks=[], yticks=[], title=title)
    if len(names) <= MAX_LABELLED_CLASSES:
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), markerscale=2)
    else:
        axes.set_xlabel(f"{len(names)} classes; too many for a legend; colours repeat")
    style.save(figure, path)


@log_figure_errors
def plot_centres(summary: CentreSummary, metric: str, path: Path) -> None:
    """Plots a forest plot: the score of each centre with its 95 % interval, their mean, and that of all images."""
    estimates = [
        *((f"{centre.name} ({centre.images})", centre.scores[metric]) for centre in summary.centres),
        *(("mean of the centres", summary.mean[metric]), ("all images", summary.pooled[metric])),
    ]
    scale, rows = METRICS[metric].scale, np.arange(len(estimates))[::-1]
    figure = PlainTextFigure(figsize=(ONE_COLUMN, 0.18 * len(estimates) + 0.8))
    axes = figure.subplots()
    for row, (_, estimate) in zip(rows, estimates):
        low, high = estimate.interval or (estimate.value, estimate.value)
        is_centre = row > 1
        axes.plot([scale * low, scale * high], [row, row], color=COLOURS[0 if is_centre else 1])
        marker = "o" if is_centre else "D"
        axes.plot(scale * estimate.value, row, marker, color=COLOURS[0 if is_centre else 1], ms=4)
    axes.set_yticks(rows, [legend_label(name) for name, _ in estimates])
    axes.axhline(1.5, color="0.8", lw=0.8)
    axes.set(ylim=(-0.6, len(estimates) - 0.4), xlabel=METRICS[metric].title + (" (%)" if scale == 100 else ""))
    axes.set_title(f"Left out in turn: {summary.column}")
    axes.grid(axis="x", alpha=0.3)
    style.save(figure, path)


@log_figure_errors
def plot_decision_curves(curves: dict[str, Any], path: Path, title: str) -> None:
    """Plots the `DecisionCurve` of each run (on the same prevalence), with those of treating all and none."""
    figure = PlainTextFigure(figsize=(ONE_COLUMN, 2.5))
    axes = figure.subplots()
    for number, (name, curve) in enumerate(curves.items()):
        (line,) = axes.plot(curve.thresholds, curve.net_benefit, label=legend_label(name), **line_style(number))
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
    style.save(figure, path)


@log_figure_errors
def plot_benefit_differences(differences: dict[str, dict[str, Any]], path: Path, title: str) -> None:
    """Plots the difference of the net benefit of each pair of runs (`runs.comparisons.compare_rates`)."""
    figure = PlainTextFigure(figsize=(ONE_COLUMN, 2.5))
    axes = figure.subplots()
    for number, (name, found) in enumerate(differences.items()):
        style_of_line = line_style(number)
        (line,) = axes.plot(found["thresholds"], found["difference"], label=legend_label(name), **style_of_line)
        if None not in found["low"]:
            axes.fill_between(
                found["thresholds"], found["low"], found["high"], color=line.get_color(), alpha=0.15, lw=0
            )
    top = max(max(map(abs, found["difference"])) for found in differences.values())
    axes.axhline(0, color="#000000", lw=0.6)
    axes.set(xlim=(0, 1), ylim=(-3 * max(top, 0.01), 3 * max(top, 0.01)))
    axes.set(xlabel="threshold probability", ylabel="difference of net benefit", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    style.save(figure, path)


@log_figure_errors
def plot_calibration(curves: dict[str, dict[str, CalibrationCurve]], path: Path) -> None:
    """Plots the fraction of positive images by score, with 95 % bands: one panel per class, one curve per run.

    Points are groups of images. Of more than `MAX_LABELLED_CLASSES` classes, the first are shown.
    """
    panels = list(curves.items())[:MAX_LABELLED_CLASSES]
    columns = min(len(panels), MAX_PANEL_COLUMNS)
    rows, width = -(-len(panels) // columns), ONE_COLUMN if columns == 1 else TWO_COLUMNS
    figure = PlainTextFigure(figsize=(width, rows * (width / columns + 0.15) + 0.4))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for index, (axes, (title, by_run)) in enumerate(zip(grid, panels)):
        axes.tick_params(labelbottom=index >= len(panels) - columns)
        axes.plot([0, 1], [0, 1], ":", color="grey", lw=0.8)
        for number, (name, curve) in enumerate(by_run.items()):
            axes.plot(curve.scores, curve.fitted, label=legend_label(name), **line_style(number))
            if curve.low:
                axes.fill_between(curve.scores, curve.low, curve.high, color=colour(number), alpha=0.18, lw=0)
            axes.plot(curve.group_scores, curve.group_fractions, "o", color=colour(number), ms=1.8)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", title=truncate_text(title, 120 // columns))
        axes.grid(alpha=0.3)
    figure.supxlabel("score", fontsize=7)
    figure.supylabel("fraction of positive images", fontsize=7)
    handles = {label: line for axes in grid for line, label in zip(*axes.get_legend_handles_labels())}
    if len(handles) > 1:
        figure.legend(handles.values(), handles.keys(), loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=columns)
    figure.tight_layout()
    style.save(figure, path)


@log_figure_errors
def plot_flow_diagram(cohort: Cohort, path: Path) -> None:
    """Plots the flow of the images: found, excluded with reasons, and split.

    Args:
        cohort: the images of the run.
    """
    steps, splits = cohort.excluded, cohort.splits
    rows = len(steps) + 2
    figure = PlainTextFigure(figsize=(TWO_COLUMNS, 0.62 * rows + 0.4))
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(0, rows))
    total = cohort.total if cohort.total is not None else sum(entry.images for entry in splits.values())
    _draw_box(axes, 0.3, rows - 0.5, f"found\n{total:,} images")
    for number, step in enumerate(steps):
        height = rows - 1.5 - number
        _draw_arrow(axes, (0.3, height), (0.605, height))
        text = f"excluded: {describe_exclusion(step)}\n{step.images:,} image{'s' * (step.images > 1)}"
        _draw_box(axes, 0.62, height, text, "left")
    _draw_arrow(axes, (0.3, rows - 0.72), (0.3, 1.06), head=False)
    positions = [(number + 0.5) / len(splits) if len(splits) > 1 else 0.3 for number in range(len(splits))]
    axes.plot([min([0.3, *positions]), max([0.3, *positions])], [1.06, 1.06], color="black", lw=0.6)
    for position, (name, entry) in zip(positions, splits.items()):
        groups = f"\n{entry.groups:,} patients or videos" if entry.groups else ""
        _draw_arrow(axes, (position, 1.06), (position, 0.76))
        _draw_box(axes, position, 0.45, f"{name}\n{entry.images:,} images{groups}")
    style.save(figure, path)


def _draw_box(axes: Any, x: float, y: float, text: str, horizontal_alignment: str = "center") -> None:
    frame = {"boxstyle": "square,pad=0.4", "fc": "white", "ec": "black", "lw": 0.6}
    axes.text(x, y, text, ha=horizontal_alignment, va="center", bbox=frame)


def _draw_arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], head: bool = True) -> None:
    style = {"arrowstyle": "-|>" if head else "-", "lw": 0.6, "color": "black", "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)
