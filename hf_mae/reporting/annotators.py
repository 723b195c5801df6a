"""Agreement of the annotators of the images with each other, and of a model with each of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.sources.tables import MISSING_LABELS, normalize_class_name
from ..errors import UsageError, did_you_mean
from ..evaluation.agreement import MISSING_LABEL, Agreement, PairAgreement, estimate_agreement, estimate_pair
from ..runs.completed_run import CompletedRun
from ..runs.predictions import natural_order
from ..settings.benchmarks import find_benchmark_or_none
from .image_rows import Row, read_image_rows, read_rows_of_run
from .messages import ReportingMessage


@dataclass(frozen=True)
class AnnotatorAgreement:
    """Agreement on the images of a run, or of a table.

    Args:
        annotators: agreement of the annotators with each other.
        model: agreement of the run with each annotator; empty for a table.
        other_classes: labels of annotators that are not among the classes of the run.
    """

    annotators: Agreement
    model: list[PairAgreement]
    other_classes: list[str]


def compute_table_agreement(columns: Sequence[str], manifest: Path | None, benchmark: str | None) -> AnnotatorAgreement:
    """Computes the agreement of annotators on all images of a table; `group` is their patient or video.

    Classes are grades if they are those of an ordinal benchmark, or numbers.

    Raises:
        UsageError: If the table is missing, if it lacks a column, or if no image has two labels.
    """
    source_name = str(manifest or benchmark)
    rows = list(read_image_rows(manifest, benchmark, source_name).values())
    labels = _read_labels(rows, columns)
    names = sorted({name for row in labels for name in row if name}, key=natural_order)
    entry = find_benchmark_or_none(benchmark)
    ordered = all(name.isdecimal() for name in names)
    if entry and set(names) <= set(entry.classes):
        names, ordered = list(entry.classes), entry.ordered
    groups = np.array([str(row.get("group") or "") for row in rows])
    agreement = _estimate(_to_ids(labels, names), columns, names, groups if all(groups) else None, ordered, source_name)
    return AnnotatorAgreement(agreement, [], [])


def compute_run_agreement(run: CompletedRun, columns: Sequence[str], manifest: Path | None) -> AnnotatorAgreement:
    """Computes the agreement of annotators on the images of a run, and that of the run with each annotator. Images
    without a row are not annotated.

    Raises:
        UsageError: If the table is missing, if it lacks a column, if no image has two labels, or if a label is not
            among the grades of a run with grades.
    """
    by_file = read_rows_of_run(run, manifest, all_images=False)
    files = list(by_file)
    labels = _read_labels([by_file[name] for name in files], columns)
    other = sorted({name for row in labels for name in row if name} - set(run.class_names), key=natural_order)
    if other and run.ordered:
        raise UsageError(ReportingMessage.ANNOTATIONS_NOT_GRADES, names=other, run=run.name)
    names = run.class_names + other
    ids, positions = _to_ids(labels, names), {name: index for index, name in enumerate(files)}
    by_fold = [np.array([positions.get(name, -1) for name in fold_files]) for fold_files in run.file_names]
    agreement = _estimate(ids, columns, names, _find_groups(run, by_fold, len(files)), run.ordered, str(run.folder))
    return AnnotatorAgreement(agreement, _estimate_model_pairs(run, columns, ids, by_fold, len(names)), other)


def _read_labels(rows: list[Row], columns: Sequence[str]) -> list[list[str]]:
    """Returns the class of each annotator (images, annotators); empty: no label."""
    existing = [str(name) for name in rows[0]]
    for name in columns:
        if name not in existing:
            suggestion = did_you_mean(name, existing)
            raise UsageError(
                ReportingMessage.UNKNOWN_COLUMN, flag="--annotators", name=name, suggestion=suggestion, names=existing
            )
    return [[_parse_label(row[name]) for name in columns] for row in rows]


def _parse_label(value: object) -> str:
    name = "" if value is None else normalize_class_name(str(value))
    return "" if name.lower() in (*MISSING_LABELS, "-1") else name


def _to_ids(labels: list[list[str]], names: Sequence[str]) -> NDArray[np.int64]:
    ids = {name: index for index, name in enumerate(names)} | {"": MISSING_LABEL}
    return np.array([[ids[name] for name in row] for row in labels], dtype=np.int64)


def _estimate(
    ids: NDArray[np.int64],
    columns: Sequence[str],
    names: Sequence[str],
    groups: NDArray[np.str_] | None,
    ordered: bool,
    source_name: str,
) -> Agreement:
    try:
        return estimate_agreement(ids, columns, len(names), groups, ordered)
    except ValueError:
        raise UsageError(ReportingMessage.NO_SHARED_ANNOTATIONS, columns=columns, source=source_name) from None


def _find_groups(
    run: CompletedRun, positions_by_fold: Iterable[NDArray[np.int64]], num_images: int
) -> NDArray[np.str_] | None:
    """Returns the patient or video of each annotated image; None if a fold has none."""
    groups = np.full(num_images, "", dtype=object)
    for fold, positions in zip(run.folds, positions_by_fold):
        if fold.groups is None:
            return None
        groups[positions[positions >= 0]] = np.asarray(fold.groups)[positions >= 0]
    return groups.astype(str)


def _estimate_model_pairs(
    run: CompletedRun,
    columns: Sequence[str],
    ids: NDArray[np.int64],
    positions_by_fold: list[NDArray[np.int64]],
    num_classes: int,
) -> list[PairAgreement]:
    pairs = []
    for number, column in enumerate(columns):
        folds = []
        for fold, positions in zip(run.folds, positions_by_fold):
            labels = np.where(positions >= 0, ids[positions, number], MISSING_LABEL)
            if (labels >= 0).any():
                annotated = replace(fold, labels=labels, num_classes=num_classes, class_scores=None)
                folds.append(annotated.select(labels >= 0))
        if folds:
            pairs.append(estimate_pair(run.name, column, folds))
    return pairs
