"""Draws docs/overview.png (inputs and outputs of a fine-tuning): `python scripts/draw_overview.py RUN IMAGES`.

`bash scripts/quickstart.sh OUT` makes both: OUT/finetuned and OUT/data/labelled.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image

from hf_mae.runs.record_io import read_record

OUTPUT_FILE = Path(__file__).parents[1] / "docs" / "overview.png"
INK, PALE = "#1f2937", "#f3f4f6"


def draw_panel(figure: Figure, left: float, width: float, title: str) -> None:
    """Draws a grey card with a title, in figure coordinates."""
    card = FancyBboxPatch(
        (left, 0.04), width, 0.84, boxstyle="round,pad=0,rounding_size=0.015", fc=PALE, ec="none", mutation_aspect=3,
        zorder=-1,
    )  # fmt: skip
    figure.add_artist(card)
    figure.text(left, 0.93, title, fontsize=11, weight="bold", color=INK)


def draw_inputs(figure: Figure, images: Path) -> None:
    """Draws the checkpoint and two images per class."""
    figure.text(0.025, 0.80, "checkpoint.pth", family="monospace", fontsize=9, color=INK)
    figure.text(0.025, 0.725, "pre-trained with facebookresearch/mae", fontsize=7.5, color=INK)
    figure.text(0.025, 0.62, "images/train/", family="monospace", fontsize=9, color=INK)
    for row, folder in enumerate(sorted(path for path in (images / "train").iterdir() if path.is_dir())[:3]):
        bottom = 0.43 - 0.18 * row
        figure.text(0.035, bottom + 0.06, f"{folder.name}/", family="monospace", fontsize=8, color=INK)
        for column, file in enumerate(sorted(folder.iterdir())[:3]):
            axes = figure.add_axes((0.105 + 0.048 * column, bottom, 0.045, 0.15))
            axes.imshow(Image.open(file))
            axes.set_axis_off()


def draw_command(figure: Figure) -> None:
    """Draws the command between two arrows."""
    for start, end in ((0.275, 0.295), (0.585, 0.605)):
        figure.add_artist(
            FancyArrowPatch((start, 0.46), (end, 0.46), arrowstyle="-|>", mutation_scale=14, lw=1.6, color=INK)
        )
    command = "hf-mae finetune \\\n    checkpoint.pth images --auto"
    figure.text(0.31, 0.70, command, family="monospace", fontsize=8.5, color=INK, va="center")
    steps = (
        "accounts for every tensor of the checkpoint",
        "checks images, patients and duplicates",
        "layer-wise lr decay, as in the original code",
        "batch size that fits; bf16, several GPUs, SLURM",
        "best epoch by macro F1; resumes if interrupted",
    )
    for number, step in enumerate(steps):
        figure.text(0.31, 0.53 - 0.09 * number, f"•  {step}", fontsize=7.5, color=INK, va="center")


def draw_outputs(figure: Figure, run: Path) -> None:
    """Draws the confusion matrix, the scores, and the list of outputs."""
    record = read_record(run)
    scores = record.scores["test" if "test" in record.scores else "validation"]
    matrix = np.asarray(scores["confusion_matrix"])
    axes = figure.add_axes((0.66, 0.43, 0.13, 0.40))
    axes.imshow(matrix / matrix.sum(axis=1, keepdims=True), cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        dark = count > matrix[row].sum() / 2
        axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color="white" if dark else INK)
    names = list(scores["per_class"])
    axes.set_xticks(range(len(names)), names, fontsize=6.5)
    axes.set_yticks(range(len(names)), names, fontsize=6.5)
    axes.tick_params(length=0)
    metrics = (("macro_precision", "macro precision"), ("macro_recall", "macro recall"), ("macro_f1", "macro F1"),
               ("accuracy", "accuracy"), ("mcc", "MCC"))  # fmt: skip
    for number, (name, title) in enumerate(metrics):
        y = 0.79 - 0.085 * number
        figure.text(0.815, y, f"{title} (%)", fontsize=8, color=INK, va="center")
        figure.text(0.975, y, f"{100 * scores[name]:.1f}", fontsize=8, ha="right", va="center")
    lines = (
        ('pipeline("image-classification")', "stock transformers weights, and back to .pth"),
        ("hf-mae report", "patient-level intervals, tests, published results, methods section"),
        ("hf-mae push, demo, export-onnx", "Hugging Face Hub, browser, ONNX Runtime"),
    )
    for number, (what, why) in enumerate(lines):
        y = 0.32 - 0.095 * number
        figure.text(0.63, y, what, family="monospace", fontsize=7, color=INK, va="center")
        figure.text(0.63, y - 0.038, why, fontsize=6.5, color="#4b5563", va="center")


def main(run: Path, images: Path) -> None:
    """Draws the figure."""
    figure = Figure(figsize=(11, 3.4), facecolor="white")
    draw_panel(figure, 0.01, 0.255, "Input")
    draw_panel(figure, 0.30, 0.28, "One command")
    draw_panel(figure, 0.615, 0.375, "Output")
    draw_inputs(figure, images)
    draw_command(figure)
    draw_outputs(figure, run)
    figure.savefig(OUTPUT_FILE, dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
