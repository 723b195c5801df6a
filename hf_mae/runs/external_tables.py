"""Prediction tables of any program as rows of a report."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import UsageError
from ..evaluation.prediction_table import Predictions
from .completed_run import CompletedRun, Note, NoteCode
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
    """Orders the images and classes of prediction tables as in a run, or else in another table, of the same images.

    Such a table gets the data, the split and, if it has none, the groups of that run, so that both are rows of one
    table of the report.

    Raises:
        UsageError: If an image has different labels.
    """
    by_images: dict[frozenset[str], list[CompletedRun]] = {}
    for run in sorted(runs, key=lambda run: (run.record is None, run.folds[0].groups is None)):
        if len(run.folds) == 1:
            by_images.setdefault(frozenset(run.file_names[0]), []).append(run)
    for first, *others in by_images.values():
        tables = [run for run in others if run.record is None]
        if first.record is None:
            _merge_class_names([first, *tables])
        for run in tables:
            _align(run, first)


def _merge_class_names(tables: list[CompletedRun]) -> None:
    """Gives tables without scores of classes the classes of all tables."""
    scored = [run for run in tables if run.folds[0].class_scores is not None]
    names = scored[0].class_names if scored else []
    names = names + sorted({name for run in tables for name in run.class_names} - set(names), key=natural_order)
    for run in tables:
        if run.folds[0].class_scores is None:
            _set_class_names(run, names)


def _align(run: CompletedRun, reference: CompletedRun) -> None:
    positions = {name: index for index, name in enumerate(run.file_names[0])}
    order = np.array([positions[name] for name in reference.file_names[0]])
    run.folds, run.file_names = [run.folds[0].select(order)], reference.file_names
    has_scores = run.folds[0].class_scores is not None
    if set(run.class_names) == set(reference.class_names) or (
        not has_scores and set(run.class_names) < set(reference.class_names)
    ):
        _set_class_names(run, reference.class_names)
        differing = np.flatnonzero(run.folds[0].labels != reference.folds[0].labels)
        if len(differing):
            labels = [one.class_names[one.folds[0].labels[differing[0]]] for one in (reference, run)]
            image = run.file_names[0][differing[0]]
            code = RunMessage.LABELS_DIFFER_BETWEEN_RUNS
            raise UsageError(code, image=image, first=labels[0], second=labels[1], path=run.folder)
    run.data, run.split, run.protocol = reference.data, reference.split, reference.protocol
    groups = run.folds[0].groups if run.folds[0].groups is not None else reference.folds[0].groups
    run.folds = [replace(run.folds[0], groups=groups, ordered=reference.folds[0].ordered)]


def _set_class_names(run: CompletedRun, names: list[str]) -> None:
    """Changes the order of the classes, and adds classes that do not occur."""
    ids = np.array([names.index(name) for name in run.class_names])
    own_ids = [run.class_names.index(name) for name in names if name in run.class_names]

    def convert(predictions: Predictions) -> Predictions:
        scores = predictions.class_scores
        return replace(
            predictions,
            labels=ids[predictions.labels],
            predicted=ids[predictions.predicted],
            num_classes=len(names),
            class_scores=None if scores is None else scores[..., own_ids],
        )

    run.folds = [convert(predictions) for predictions in run.folds]
    run.threshold_predictions = run.threshold_predictions and [convert(fold) for fold in run.threshold_predictions]
    run.class_names = names
