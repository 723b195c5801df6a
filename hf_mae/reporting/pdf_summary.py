"""Summary of a run on one PDF page, for clinicians: description, scores, error analysis, and examples of errors."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context

from ..data.images.image_error import ImageError
from ..data.images.image_io import read_rgb
from ..errors import pluralize
from ..evaluation.metrics import display_scale
from ..runs.completed_run import CompletedRun
from ..settings.metrics import METRICS
from .figures import DARK, GREY, STYLE, PlainTextFigure, save_figure, truncate_text
from .run_sentences import describe_note, describe_selection

A4 = (8.27, 11.69)  # inches
LEFT_MARGIN = 0.09  # fraction of the page
MAX_ERROR_EXAMPLES = 8
MAX_CONFUSIONS = 4
MAX_DESCRIPTION_LINES = 8
MAX_PLOTTED_CLASSES = 24  # of more classes, the weakest are shown
DISCLAIMER = "Research software. Not a medical device; do not use it for decisions on patients."


def write_pdf_summary(run: CompletedRun, path: Path) -> None:
    """Draws the page.

    Args:
        run: the run; of a cross-validation, the predictions of all folds together.
        path: the PDF file.
    """
    with rc_context(STYLE):
        figure = PlainTextFigure(figsize=A4)
        _draw_description(figure, run)
        _draw_scores(figure, run)
        _draw_error_analysis(figure, run)
        _draw_error_examples(figure, run)
        figure.text(LEFT_MARGIN, 0.03, DISCLAIMER, fontsize=7, style="italic")
        save_figure(figure, path, dpi=300, full_page=True)


def _draw_heading(figure: Any, y: float, text: str) -> None:
    figure.text(LEFT_MARGIN, y, text, fontsize=11, weight="bold", color=DARK)


def _draw_description(figure: Any, run: CompletedRun) -> None:
    images = sum(len(fold.labels) for fold in run.folds)
    groups = [fold.groups for fold in run.folds if fold.groups is not None]
    patients = len(np.unique(np.concatenate(groups))) if groups else 0
    origin = f" of {patients} patients or videos" if patients else "; patients are not known"
    classes = pluralize(len(run.class_names), "class")
    figure.text(LEFT_MARGIN, 0.945, truncate_text(f"{run.data}: {classes}", 60), fontsize=16, weight="bold")
    selection = describe_selection(run.record.selection) if run.record else ""
    kind = f"a {run.record.network}" if run.record and run.record.network else "a vision transformer"
    sentences = (
        f"{run.name}: {kind} that classifies images into {classes}, fine-tuned from {run.initialisation}.",
        f"All results are of {pluralize(images, 'image')} of the {run.split} split{origin}.",
        " ".join([selection, *map(describe_note, run.notes)]),
    )
    lines = [line for sentence in sentences for line in textwrap.wrap(sentence, 118)]
    if len(lines) > MAX_DESCRIPTION_LINES:
        lines = [*lines[: MAX_DESCRIPTION_LINES - 1], "... (the rest is in report.md)"]
    figure.text(LEFT_MARGIN, 0.93, "\n".join(lines), fontsize=8, va="top", linespacing=1.5)


def _draw_scores(figure: Any, run: CompletedRun) -> None:
    """Draws the headline scores with their intervals."""
    _draw_heading(figure, 0.80, "Performance")
    scores = [(name, score) for name, score in run.scores().items() if display_scale(name) == 100.0]
    axes = figure.add_axes((0.25, 0.665, 0.42, 0.12))
    for row, (_, score) in enumerate(scores):
        value, interval = 100 * score["mean"], score["interval"]
        axes.barh(row, value, color=DARK, height=0.55)
        text = f"{value:.1f}"
        if interval is not None:
            low, high = (100 * end for end in interval)
            axes.plot((low, high), (row, row), color="black", linewidth=1.2)
            text += f"   ({low:.1f} to {high:.1f})"
        axes.text(1.03, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.set_yticks(range(len(scores)), [METRICS[name].title for name, _ in scores], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("per cent; line and parentheses: 95 % interval")


def _draw_error_analysis(figure: Any, run: CompletedRun) -> None:
    """Draws the sensitivity of each class, weakest first, and lists the most frequent confusions."""
    _draw_heading(figure, 0.615, "Error analysis")
    rates = {name: rates["sensitivity"] for name, rates in run.class_rates().items() if "sensitivity" in rates}
    names = sorted(rates, key=lambda name: rates[name].value)[:MAX_PLOTTED_CLASSES]
    height = min(0.245, 0.04 * len(names))
    axes = figure.add_axes((0.25, 0.59 - height, 0.27, height))
    for row, name in enumerate(names):
        axes.barh(row, 100 * rates[name].value, color=GREY, height=0.6)
        if (interval := rates[name].interval) is not None:
            axes.plot([100 * end for end in interval], (row, row), color="black", linewidth=0.8)
    axes.set_yticks(range(len(names)), [truncate_text(name, 28) for name in names], fontsize=min(8, 170 / len(names)))
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    note = f" (the weakest {len(names)} of {len(rates)} classes)" if len(names) < len(rates) else ""
    axes.set_xlabel(f"sensitivity: images of the class that are recognised, %{note}")
    lines = [textwrap.fill(sentence, 50, subsequent_indent="   ") for sentence in _confusion_lines(run)]
    figure.text(0.56, 0.585, "\n\n".join(lines), fontsize=8, va="top", linespacing=1.4)


def _confusion_lines(run: CompletedRun) -> list[str]:
    """Returns the most frequent confusions as sentences."""
    matrix = np.asarray(sum(fold.confusion_matrices().mean(0) for fold in run.folds))
    errors = matrix * (1 - np.eye(len(run.class_names)))
    order = np.argsort(-errors, axis=None, kind="stable")[:MAX_CONFUSIONS]
    pairs = [np.unravel_index(index, errors.shape) for index in order if errors.flat[index] > 0]
    if not pairs:
        return ["None of these images was misclassified."]
    lines = ["Most frequent confusions:"]
    for true, predicted in pairs:
        count, total = errors[true, predicted], matrix[true].sum()
        rate = f"{count:.3g} of {total:.0f} {run.class_names[true]} ({100 * count / total:.0f} %)"
        lines.append(f"•  {rate} as {run.class_names[predicted]}")
    return lines


def _draw_error_examples(figure: Any, run: CompletedRun) -> None:
    """Draws the most confident errors of the first fold and seed."""
    _draw_heading(figure, 0.295, "Most confident errors")
    examples, unreadable = [], 0
    folder = Path(run.source.data_dir if run.source else ".")
    for file, true, predicted, score in _errors_by_confidence(run):
        try:
            examples.append((read_rgb(folder / file), true, predicted, score))
        except (ImageError, OSError):
            unreadable += 1
        if len(examples) == MAX_ERROR_EXAMPLES:
            break
    for index, (image, true, predicted, score) in enumerate(examples):
        row, column = divmod(index, MAX_ERROR_EXAMPLES // 2)
        axes = figure.add_axes((LEFT_MARGIN + 0.21 * column, 0.175 - 0.115 * row, 0.19, 0.08))
        axes.imshow(image)
        axes.set_axis_off()
        confidence = "" if score is None else f", score {100 * score:.0f} %"
        title = f"{truncate_text(true, 26)}\nas {truncate_text(predicted, 20)}{confidence}"
        axes.set_title(title, fontsize=6, loc="left", pad=2)
    if not examples:
        text = f"The images are not in {folder}." if unreadable else "No image was misclassified."
        figure.text(LEFT_MARGIN, 0.27, text, fontsize=8)


def _errors_by_confidence(run: CompletedRun) -> list[tuple[str, str, str, float | None]]:
    """Returns file, true class, predicted class and score of the misclassified images, highest score first."""
    fold, files = run.folds[0], run.file_names[0]
    predicted = fold.predicted[0]
    errors = np.flatnonzero(predicted != fold.labels)
    scores = None if fold.class_scores is None else fold.class_scores[0, errors, predicted[errors]]
    order = range(len(errors)) if scores is None else np.argsort(-scores, kind="stable")
    return [
        (
            files[errors[index]],
            run.class_names[fold.labels[errors[index]]],
            run.class_names[predicted[errors[index]]],
            None if scores is None else float(scores[index]),
        )
        for index in order
    ]
