"""Out-of-fold predictions: predictions of held-out images, collected from runs."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UsageError
from .messages import RunMessage
from .predictions import find_predictions, read_prediction_table
from .record import ALL_RESULTS, CROSSVAL, RunRecord
from .record_io import read_record

SPLITS = ("validation", "test")


@dataclass(frozen=True)
class OutOfFoldPredictions:
    """Label and scores (classes,) of each image, by file name; scores are means over the runs that evaluated it."""

    class_names: list[str]
    labels: dict[str, str]
    scores: dict[str, np.ndarray]
    record: RunRecord


def read_out_of_fold_predictions(runs: list[str]) -> OutOfFoldPredictions:
    """Reads the held-out predictions of runs and of all runs of cross-validations; averages the scores of each image.

    Raises:
        UsageError: If predictions are missing, or if classes or labels differ between runs.
    """
    folders = [folder for run in runs for folder in _list_run_folders(Path(run))]
    class_names: list[str] = []
    labels: dict[str, str] = {}
    scores: dict[str, list[np.ndarray]] = defaultdict(list)
    for folder in folders:
        for split in [split for split in SPLITS if find_predictions(folder, split)]:
            table = read_prediction_table(folder, split, need_scores=True)
            if class_names and table.class_names != class_names:
                raise UsageError(RunMessage.CLASSES_DIFFER_BETWEEN_RUNS, path=folder, names=table.class_names[:5])
            class_names = table.class_names
            assert table.class_scores is not None, "the scores were required"
            for image, label_id, row in zip(table.file_names, table.labels, table.class_scores, strict=True):
                label = class_names[label_id]
                if (first := labels.setdefault(image, label)) != label:
                    raise UsageError(
                        RunMessage.LABELS_DIFFER_BETWEEN_RUNS, image=image, first=first, second=label, path=folder
                    )
                scores[image].append(row)
    if not scores:
        raise UsageError(RunMessage.HELD_OUT_PREDICTIONS_MISSING, path=runs[0])
    means = {file_name: np.mean(rows, axis=0) for file_name, rows in scores.items()}
    return OutOfFoldPredictions(class_names, labels, means, read_record(folders[0]))


def list_crossval_runs(folder: Path) -> list[Path]:
    """Lists the folders of the runs with the largest fraction of the labels; empty if the folder is not a
    cross-validation."""
    if not (folder / CROSSVAL).is_file():
        return []
    summary = read_record(folder, CROSSVAL).crossval
    assert summary is not None, "the record of a cross-validation has a summary"
    largest = max(result.run.fraction for result in summary.runs)
    return [folder / result.folder for result in summary.runs if result.run.fraction == largest]


def _list_run_folders(folder: Path) -> list[Path]:
    if folders := list_crossval_runs(folder):
        return folders
    if (folder / ALL_RESULTS).is_file():
        return [folder]
    raise UsageError(RunMessage.NOT_A_TRAINING_RUN, path=folder)
