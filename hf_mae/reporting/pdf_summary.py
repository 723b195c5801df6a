"""One page of a run, as a PDF to hand to a clinician: what it is, how good, where it fails, examples of mistakes."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context

from ..data.image_io import ImageError, read_rgb
from ..errors import pluralize
from ..evaluation.confusion import TITLES, display_scale
from ..runs.load_run import FinishedRun
from .figures import DARK, GREY, STYLE, PlainTextFigure, save_figure, truncate_text

A4 = (8.27, 11.69)  # inches
LEFT_MARGIN = 0.09  # margin, in shares of the page
MAX_ERROR_EXAMPLES = 8  # mistakes that are shown
MAX_CONFUSIONS = 4  # that are told
MAX_DESCRIPTION_LINES = 8  # of text at the top
MAX_PLOTTED_CLASSES = 24  # classes that are drawn, of more the weakest
DISCLAIMER = "Research software: not a medical device, and not to be used for decisions on patients."


def write_pdf_summary(run: FinishedRun, path: Path) -> None:
    """Draws the page.

    Args:
        run: of a cross-validation, the predictions of all folds together.
        path: the PDF.
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


def _draw_description(figure: Any, run: FinishedRun) -> None:
    images = sum(len(fold.labels) for fold in run.folds)
    groups = [fold.groups for fold in run.folds if fold.groups is not None]
    patients = len(np.unique(np.concatenate(groups))) if groups else 0
    of = f" of {patients} patients or videos" if patients else ", whose patients are not known"
    classes = pluralize(len(run.names), "class")
    figure.text(LEFT_MARGIN, 0.945, truncate_text(f"{run.data}: {classes}", 60), fontsize=16, weight="bold")
    how = run.record.selection.sentence if run.record and run.record.selection else ""
    kind = f"a {run.record.network}" if run.record and run.record.network else "a vision transformer"
    sentences = (
        f"{run.name}: {kind} for {classes} of images, fine-tuned from {run.initialisation}.",
        f"What stands below was found on {pluralize(images, 'image')} of the {run.split} split{of}.",
        " ".join([how, *run.notes]),
    )
    lines = [line for sentence in sentences for line in textwrap.wrap(sentence, 118)]
    if len(lines) > MAX_DESCRIPTION_LINES:
        lines = [*lines[: MAX_DESCRIPTION_LINES - 1], "... (the rest is in report.md)"]
    figure.text(LEFT_MARGIN, 0.93, "\n".join(lines), fontsize=8, va="top", linespacing=1.5)


def _draw_scores(figure: Any, run: FinishedRun) -> None:
    """The headline scores, each with its interval as a line."""
    _draw_heading(figure, 0.80, "How good it is")
    scores = [(name, found) for name, found in run.scores().items() if display_scale(name) == 100.0]
    axes = figure.add_axes((0.25, 0.665, 0.42, 0.12))
    for place, (_, found) in enumerate(scores):
        value, reach = 100 * found["mean"], found["interval"]
        axes.barh(place, value, color=DARK, height=0.55)
        text = f"{value:.1f}"
        if reach is not None:
            low, high = (100 * end for end in reach)
            axes.plot((low, high), (place, place), color="black", linewidth=1.2)
            text += f"   ({low:.1f} to {high:.1f})"
        axes.text(1.03, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.set_yticks(range(len(scores)), [TITLES[name] for name, _ in scores], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("per cent; line and brackets: 95 % interval")


def _draw_error_analysis(figure: Any, run: FinishedRun) -> None:
    """How many images of each class are found, weakest first, and what is taken for what."""
    _draw_heading(figure, 0.615, "Where it fails")
    found = {name: rates["sensitivity"] for name, rates in run.class_rates().items() if "sensitivity" in rates}
    weakest = sorted(found, key=lambda name: found[name].value)
    shown = weakest[:MAX_PLOTTED_CLASSES]
    height = min(0.245, 0.04 * len(shown))
    axes = figure.add_axes((0.25, 0.59 - height, 0.27, height))
    for place, name in enumerate(shown):
        rate = found[name]
        axes.barh(place, 100 * rate.value, color=GREY, height=0.6)
        if rate.interval is not None:
            axes.plot([100 * end for end in rate.interval], (place, place), color="black", linewidth=0.8)
    axes.set_yticks(range(len(shown)), [truncate_text(name, 28) for name in shown], fontsize=min(8, 170 / len(shown)))
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    of = f" (the weakest {len(shown)} of {len(found)} classes)" if len(shown) < len(found) else ""
    axes.set_xlabel(f"images of the class that are found, %{of}")
    told = [textwrap.fill(sentence, 50, subsequent_indent="   ") for sentence in _confusion_lines(run)]
    figure.text(0.56, 0.585, "\n\n".join(told), fontsize=8, va="top", linespacing=1.4)


def _confusion_lines(run: FinishedRun) -> list[str]:
    """The most frequent mistakes, in words."""
    matrix = sum(fold.confusion_matrices().mean(0) for fold in run.folds)
    wrong = np.asarray(matrix) * (1 - np.eye(len(run.names)))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_CONFUSIONS]
    pairs = [np.unravel_index(place, wrong.shape) for place in order if wrong.flat[place] > 0]
    if not pairs:
        return ["Not one of these images was taken for another class."]
    there = np.asarray(matrix).sum(1)
    told = ["Most often taken for another class:"]
    for true, taken in pairs:
        count, of = wrong[true, taken], there[true]
        told.append(f"•  {count:.3g} of {of:.0f} {run.names[true]} ({100 * count / of:.0f} %) for {run.names[taken]}")
    return told


def _draw_error_examples(figure: Any, run: FinishedRun) -> None:
    """The most confident mistakes of the first fold and run."""
    _draw_heading(figure, 0.295, "Mistakes that it was surest of")
    shown, lacking = [], 0
    folder = Path(run.source.data_dir if run.source else ".")
    for file, true, taken, score in _errors_by_confidence(run):
        try:
            shown.append((read_rgb(folder / file), true, taken, score))
        except (ImageError, OSError):
            lacking += 1
        if len(shown) == MAX_ERROR_EXAMPLES:
            break
    for place, (image, true, taken, score) in enumerate(shown):
        row, column = divmod(place, MAX_ERROR_EXAMPLES // 2)
        axes = figure.add_axes((LEFT_MARGIN + 0.21 * column, 0.175 - 0.115 * row, 0.19, 0.08))
        axes.imshow(image)
        axes.set_axis_off()
        sure = "" if score is None else f", {100 * score:.0f} % sure"
        axes.set_title(
            f"{truncate_text(true, 26)}\nfor {truncate_text(taken, 20)}{sure}", fontsize=6, loc="left", pad=2
        )
    if not shown:
        figure.text(
            LEFT_MARGIN, 0.27, f"Their images are not in {folder}." if lacking else "There is none.", fontsize=8
        )


def _errors_by_confidence(run: FinishedRun) -> list[tuple[str, str, str, float | None]]:
    """File, true class, what it was taken for and how surely; surest first."""
    fold, files = run.folds[0], run.file_names[0]
    predicted = fold.predicted[0]
    wrong = np.flatnonzero(predicted != fold.labels)
    sure = None if fold.class_scores is None else fold.class_scores[0, wrong, predicted[wrong]]
    order = range(len(wrong)) if sure is None else np.argsort(-sure, kind="stable")
    return [
        (
            files[wrong[place]],
            run.names[fold.labels[wrong[place]]],
            run.names[predicted[wrong[place]]],
            None if sure is None else float(sure[place]),
        )
        for place in order
    ]
