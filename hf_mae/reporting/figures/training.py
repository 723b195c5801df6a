"""Figures of training: learning curves, trials of a search, label efficiency. Paths are without a suffix."""

from pathlib import Path
from typing import Any

import numpy as np

from ...evaluation.metrics import display_scale, summary_metric_names
from ...settings.metrics import METRICS, metric_title
from . import style
from .style import (
    COLOURS,
    LINE_STYLES,
    MARKERS,
    ONE_COLUMN,
    PlainTextFigure,
    colour,
    legend_label,
    line_style,
    log_figure_errors,
)


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
    """
    columns = 2 if len(points) == 4 else min(len(points), 3)
    lines = -(-len(points) // columns)
    figure = PlainTextFigure(figsize=(ONE_COLUMN * columns * 0.75, 2.2 * lines))
    axes = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for panel, (name, trials) in zip(axes.flat, points.items()):
        for stopped, label, marker in ((False, "completed", {"marker": "o"}), (True, "stopped early", {"marker": "x"})):
            selected = [(value, score) for value, score, early in trials if early == stopped]
            if selected:
                panel.plot(*zip(*selected), ls="", ms=3.5, color=colour(int(stopped)), label=label, **marker)
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
    style.save(figure, path)


@log_figure_errors
def plot_learning_curves(log_history: list[dict[str, Any]], path: Path) -> None:
    """Plots the losses and the validation scores over the epochs, from `trainer.state.log_history`."""
    curves = {
        "training loss": [(log["epoch"], log["loss"]) for log in log_history if "loss" in log],
        "validation loss": [(log["epoch"], log["eval_loss"]) for log in log_history if "eval_loss" in log],
    }
    scores = {
        METRICS[name].title: [(log["epoch"], 100 * log[f"eval_{name}"]) for log in log_history if f"eval_{name}" in log]
        for name in summary_metric_names()
    }
    panels = [curves, scores] if any(scores.values()) else [curves]
    figure = PlainTextFigure(figsize=(ONE_COLUMN * len(panels), 2.3))
    axes = figure.subplots(1, len(panels), squeeze=False)
    for panel, lines, label in zip(axes[0], panels, ("loss", "validation score (%)")):
        for number, (name, points) in enumerate(lines.items()):
            if points:
                marker = {"marker": MARKERS[number], "ms": 2.5} if len(points) < 15 else {}
                panel.plot(*zip(*points), label=name, color=colour(number), linestyle=LINE_STYLES[number], **marker)
        panel.set(xlabel="epoch", ylabel=label)
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend()
    figure.tight_layout()
    style.save(figure, path)


@log_figure_errors
def plot_label_efficiency(curves: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Plots the points of `runs.crossval.label_efficiency_curve`, one curve per initialisation."""
    figure = PlainTextFigure(figsize=(ONE_COLUMN, 2.4))
    axes = figure.subplots()
    for number, (name, points) in enumerate(curves.items()):
        labels = [point["images"] for point in points]
        mean = np.array([100 * point["macro_f1"]["mean"] for point in points])
        std = np.array([100 * point["macro_f1"]["std"] for point in points])
        (line,) = axes.plot(
            labels, mean, marker=MARKERS[number % len(MARKERS)], ms=3, label=legend_label(name), **line_style(number)
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
    style.save(figure, path)
