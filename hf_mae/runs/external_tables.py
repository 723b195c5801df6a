"""Prediction tables of any program as rows of a report."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import UsageError
from ..evaluation.prediction_table import Predictions
from .completed_run import CompletedRun, Note, NoteCode
from .image_names import NameMatch, match_names, path_parts
from .messages import RunMessage
from .predictions import (
    FILE_PREFIX,
    PredictionTable,
    find_predictions,
    natural_order,
    read_prediction_file,
    read_prediction_table,
    stack_tables,
)
from .record import run_name

DATA_NAME = "prediction tables"  # their dataset is unknown
MAX_EXAMPLES = 3


def load_table(path: Path, split: str | None = None) -> CompletedRun:
    """Loads a CSV file of any program, or the parquet file of a run, with the predictions of a split.

    Args:
        split: the requested split; None: that of the file name `predictions_<split>.csv`.

    Raises:
        UsageError: If the file is invalid, or its name contains another split.
    """
    named_split = path.stem.removeprefix(FILE_PREFIX) if path.stem.startswith(FILE_PREFIX) else None
    if split and named_split and split != named_split:
        raise UsageError(RunMessage.SPLIT_NOT_EVALUATED, path=path, split=split, available=[named_split])
    name = run_name(path.parent) if named_split else path.stem
    return _make_run(name, path, split or named_split or "", read_prediction_file(path))


def load_table_folder(folder: Path, split: str) -> CompletedRun:
    """Loads the predictions of a split from a folder without a record; thresholds are chosen on its validation split,
    or on its selection split.

    Raises:
        UsageError: If a table is invalid.
    """
    table = read_prediction_table(folder, split)
    run = _make_run(run_name(folder), folder, split, table)
    others = [name for name in ("validation", "selection") if name != split and find_predictions(folder, name)]
    if others and table.class_scores is not None:
        threshold_table = read_prediction_table(folder, others[0], need_scores=True)
        if threshold_table.class_names == table.class_names:
            run.threshold_predictions, run.threshold_split = [stack_tables([threshold_table])], others[0]
    return run


def _make_run(name: str, path: Path, split: str, table: PredictionTable) -> CompletedRun:
    (parts, count), *_ = Counter(map(path_parts, table.file_names)).most_common(1)
    if count > 1:
        raise UsageError(RunMessage.PREDICTIONS_REPEAT_FILE_NAME, path=path, name="/".join(parts))
    return CompletedRun(
        name=name,
        folder=path,
        data=DATA_NAME,
        split=split,
        protocol=None,
        initialisation="",
        class_names=table.class_names,
        folds=[stack_tables([table])],
        file_names=[table.file_names],
        selected_on_eval_split=False,
        notes=[Note(NoteCode.SELECTION_UNKNOWN)],
    )


def align_tables(runs: list[CompletedRun]) -> None:
    """Orders the images, folds and classes of prediction tables as in a run, or another table, of the same images.

    Such a table gets the data, the split and, if it has none, the groups of that run, so that both are rows of one
    table of the report.

    Raises:
        UsageError: If the images of a table are not those of the run or of the other tables of its split, if an image
            has different labels, or if a class is not one of the run.
    """
    references: list[list[CompletedRun]] = []
    for run in sorted(runs, key=lambda run: (run.evaluated is None, run.folds[0].groups is None)):
        equal = [group for group in references if run.evaluated is None and _match(run, group[0]).is_complete]
        if equal:
            equal[0].append(run)
        else:
            references.append([run])
    for index, (first, *tables) in enumerate(references):
        if first.evaluated is None:
            _check_is_alone(first, [group[0] for group in references[:index]])
            _merge_class_names([first, *tables])
        for run in tables:
            _align(run, first)


def _match(run: CompletedRun, reference: CompletedRun) -> NameMatch:
    """Finds the images of a reference in a table."""
    return match_names(run.file_names[0], [name for fold in reference.file_names for name in fold])


def _check_is_alone(table: CompletedRun, others: list[CompletedRun]) -> None:
    """Raises UsageError if other runs or tables have other images of the same split."""
    matches = [
        (_match(table, other), other)
        for other in others
        if other.split == table.split or not (other.split and table.split)
    ]
    if not matches:
        return
    ranks = [(len(match.missing) + len(match.extra), run.evaluated is None) for match, run in matches]
    match, closest = matches[ranks.index(min(ranks))]
    raise UsageError(
        RunMessage.TABLE_OF_OTHER_IMAGES,
        path=table.folder,
        first=closest.folder,
        total=len(match.missing) + len(match.positions),
        missing=_describe_names(match.missing),
        extra=_describe_names(match.extra),
    )


def _describe_names(names: list[str]) -> str:
    """Number of names, with examples."""
    examples = ", ".join(sorted(names)[:MAX_EXAMPLES])
    return f"{len(names)} ({examples}{', ...' if len(names) > MAX_EXAMPLES else ''})" if names else "0"


def _merge_class_names(tables: list[CompletedRun]) -> None:
    """Gives tables without scores of classes the classes of all tables."""
    scored = [run for run in tables if run.folds[0].class_scores is not None]
    names = scored[0].class_names if scored else []
    names = names + sorted({name for run in tables for name in run.class_names} - set(names), key=natural_order)
    for run in tables:
        if run.folds[0].class_scores is None:
            _set_class_names(run, names)


def _align(run: CompletedRun, reference: CompletedRun) -> None:
    positions, (predictions,) = _match(run, reference).positions, run.folds
    run.folds = [predictions.select(np.array([positions[name] for name in fold])) for fold in reference.file_names]
    run.file_names = reference.file_names
    run.threshold_predictions = run.threshold_predictions and run.threshold_predictions * len(run.folds)
    has_scores = predictions.class_scores is not None
    unknown = sorted(set(run.class_names) - set(reference.class_names), key=natural_order)
    if unknown and reference.evaluated is not None:
        code = RunMessage.TABLE_WITH_UNKNOWN_CLASS
        raise UsageError(code, path=run.folder, names=unknown, first=reference.folder, known=reference.class_names)
    if not unknown and (
        reference.evaluated is not None or not has_scores or len(run.class_names) == len(reference.class_names)
    ):
        _set_class_names(run, reference.class_names)
        _check_labels(run, reference)
    run.data, run.split, run.protocol = reference.data, reference.split, reference.protocol
    run.source = reference.source
    run.folds = [
        replace(fold, groups=other.groups if fold.groups is None else fold.groups, ordered=other.ordered)
        for fold, other in zip(run.folds, reference.folds)
    ]


def _check_labels(run: CompletedRun, reference: CompletedRun) -> None:
    for names, fold, other in zip(run.file_names, run.folds, reference.folds):
        if len(differing := np.flatnonzero(fold.labels != other.labels)):
            labels = [run.class_names[labels[differing[0]]] for labels in (other.labels, fold.labels)]
            code, image = RunMessage.LABELS_DIFFER_BETWEEN_RUNS, names[differing[0]]
            raise UsageError(code, image=image, first=labels[0], second=labels[1], path=run.folder)


def _set_class_names(run: CompletedRun, names: list[str]) -> None:
    """Changes the order of the classes, and adds classes that do not occur."""
    ids = np.array([names.index(name) for name in run.class_names])

    def convert(predictions: Predictions) -> Predictions:
        scores = None
        if predictions.class_scores is not None:
            scores = np.zeros((*predictions.class_scores.shape[:-1], len(names)))
            scores[..., ids] = predictions.class_scores
        return replace(
            predictions,
            labels=ids[predictions.labels],
            predicted=ids[predictions.predicted],
            num_classes=len(names),
            class_scores=scores,
        )

    run.folds = [convert(predictions) for predictions in run.folds]
    run.threshold_predictions = run.threshold_predictions and [convert(fold) for fold in run.threshold_predictions]
    run.class_names = names
