"""Figures of a run: confusion matrix and learning curves, as PNG and SVG."""

from pathlib import Path

import numpy as np


def _save(figure, path: Path) -> None:
    import matplotlib.pyplot as plt

    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=150, bbox_inches="tight")
    plt.close(figure)


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def confusion_matrix(matrix: list[list[int]], names: list[str], path: Path, title: str) -> None:
    """Rows are the true classes, coloured by their share; the counts are written in.

    Args:
        matrix: counts (classes, classes).
        path: file without its suffix.
    """
    plt = _pyplot()
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = max(4.0, 0.42 * len(names) + 2)
    figure, axes = plt.subplots(figsize=(size + 1, size))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), [f"{name} ({n})" for name, n in zip(names, counts.sum(axis=1))])
    axes.set(xlabel="predicted", ylabel="true (images)", title=title)
    for row, column in zip(*np.nonzero(counts)):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, label="share of the true class", fraction=0.046, pad=0.04)
    _save(figure, path)


def learning_curves(log_history: list[dict], path: Path) -> None:
    """Training loss, evaluation loss and the headline scores over the epochs.

    Args:
        log_history: `trainer.state.log_history`.
        path: file without its suffix.
    """
    plt = _pyplot()
    curves = {
        "training loss": [(log["epoch"], log["loss"]) for log in log_history if "loss" in log],
        "validation loss": [(log["epoch"], log["eval_loss"]) for log in log_history if "eval_loss" in log],
    }
    scores = {
        label: [(log["epoch"], 100 * log[f"eval_{name}"]) for log in log_history if f"eval_{name}" in log]
        for name, label in (("macro_f1", "macro F1"), ("accuracy", "accuracy"), ("mcc", "MCC"))
    }
    panels = [curves, scores] if any(scores.values()) else [curves]
    figure, axes = plt.subplots(1, len(panels), figsize=(5.5 * len(panels), 3.6), squeeze=False)
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
