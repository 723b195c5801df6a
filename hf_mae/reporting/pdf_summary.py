"""Summary of a run on one PDF page, for clinicians: description, scores, error analysis, and examples of errors."""

import textwrap
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from ..data.images.image_error import ImageError
from ..data.images.image_io import read_rgb
from ..errors import pluralize
from ..evaluation.metrics import display_scale
from ..runs.completed_run import CompletedRun
from .build_report import make_rate
from .document import Block, BulletList, Heading, Image, Paragraph
from .figures.style import truncate_text
from .headline import HeadlineRow, headline_table, run_scores
from .renderers import pdf
from .run_sentences import describe_note, describe_selections
from .table import CellLike, Column, Table, number_columns

MAX_ERROR_EXAMPLES = 8
MAX_CONFUSIONS = 4
MAX_NOTES_LENGTH = 600  # characters
MAX_PLOTTED_CLASSES = 20  # of more classes, the weakest are shown
DISCLAIMER = "Research software. Not a medical device; do not use it for decisions on patients."


def write_pdf_summary(run: CompletedRun, path: Path) -> None:
    """Writes the page; of a cross-validation, it shows the predictions of all folds together."""
    pdf.write(build_pdf_summary(run), path)


def build_pdf_summary(run: CompletedRun) -> list[Block]:
    """Builds the document of the page."""
    return [
        *_description_blocks(run),
        Heading("Performance"),
        _score_bars(run),
        Heading("Error analysis"),
        _sensitivity_bars(run),
        *_confusion_blocks(run),
        Heading("Most confident errors"),
        *_error_examples(run),
        Paragraph(DISCLAIMER),
    ]


def _description_blocks(run: CompletedRun) -> list[Block]:
    images = run.num_images
    groups = [fold.groups for fold in run.folds if fold.groups is not None]
    patients = len(np.unique(np.concatenate(groups))) if groups else 0
    origin = f" of {patients} patients or videos" if patients else "; patients are not known"
    classes = pluralize(len(run.class_names), "class")
    kind = f"a {run.evaluated.network}" if run.evaluated and run.evaluated.network else "a vision transformer"
    selection = describe_selections([record.selection for record in run.trained if record.selection])
    notes = " ".join([selection, *map(describe_note, run.notes)])
    return [
        Heading(f"{truncate_text(run.data, 50)}: {classes}", 1),
        Paragraph(f"{run.name}: {kind} that classifies images into {classes}, fine-tuned from {run.initialisation}."),
        Paragraph(f"All results are of {pluralize(images, 'image')} of the {run.split} split{origin}."),
        Paragraph(textwrap.shorten(notes, MAX_NOTES_LENGTH, placeholder=" ... (the rest is in report.md)")),
    ]


def _score_bars(run: CompletedRun) -> Table:
    """Builds the headline table of the scores in per cent."""
    scores = {name: score for name, score in run_scores(run.scores()).items() if display_scale(name) == 100.0}
    table = headline_table(
        [Column("")], [HeadlineRow([run.split], scores)], caption="per cent; line, [ ]: 95 % interval"
    )
    return replace(table.transpose(), bars=True)


def _sensitivity_bars(run: CompletedRun) -> Table:
    """Builds the table of the sensitivity of each class, weakest first."""
    rates = {name: rates["sensitivity"] for name, rates in run.class_rates().items() if "sensitivity" in rates}
    names = sorted(rates, key=lambda name: rates[name].value)[:MAX_PLOTTED_CLASSES]
    rows: list[list[CellLike]] = [[name, make_rate(rates[name])] for name in names]
    note = f" (the weakest {len(names)} of {len(rates)} classes)" if len(names) < len(rates) else ""
    caption = f"sensitivity: images of the class that are recognised, %{note}"
    return Table([Column("class"), *number_columns(["sensitivity"])], rows, caption, bars=True)


def _confusion_blocks(run: CompletedRun) -> list[Block]:
    """Lists the most frequent confusions."""
    matrix = np.asarray(sum(fold.confusion_matrices().mean(0) for fold in run.folds))
    errors = matrix * (1 - np.eye(len(run.class_names)))
    order = np.argsort(-errors, axis=None, kind="stable")[:MAX_CONFUSIONS]
    pairs = [np.unravel_index(index, errors.shape) for index in order if errors.flat[index] > 0]
    if not pairs:
        return [Paragraph("None of these images was misclassified.")]
    lines = []
    for true, predicted in pairs:
        count, total = errors[true, predicted], matrix[true].sum()
        rate = f"{count:.3g} of {total:.0f} {run.class_names[true]} ({100 * count / total:.0f} %)"
        lines.append(f"{rate} as {run.class_names[predicted]}")
    return [Paragraph("Most frequent confusions:"), BulletList(lines)]


def _error_examples(run: CompletedRun) -> list[Block]:
    """Returns the most confident errors of the first fold and seed whose images can be read."""
    folder = Path(run.source.data_dir if run.source else ".")
    errors = _errors_by_confidence(run)
    readable = (error for error in errors if _is_readable(folder / error[0]))
    examples = [
        Image(
            folder / file,
            f"{truncate_text(true, 26)}\nas {truncate_text(predicted, 20)}"
            + ("" if score is None else f", score {100 * score:.0f} %"),
            folder,
        )
        for file, true, predicted, score in islice(readable, MAX_ERROR_EXAMPLES)
    ]
    missing = f"The images are not in {folder}." if errors else "No image was misclassified."
    return [*examples] or [Paragraph(missing)]


def _is_readable(path: Path) -> bool:
    try:
        read_rgb(path)
    except (ImageError, OSError):
        return False
    return True


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
