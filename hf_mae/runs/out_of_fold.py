"""What models say of images that they were not trained on, gathered from the predictions of runs."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UsageError
from .predictions import read_predictions
from .record import ALL_RESULTS, CROSSVAL, RunRecord
from .record_io import read_record

SPLITS = ("validation", "test")


@dataclass(frozen=True)
class OutOfFoldPredictions:
    """Mean scores of images, by file name: the label that they had, and (classes,) of every run that judged them."""

    names: list[str]
    labels: dict[str, str]
    scores: dict[str, np.ndarray]
    record: RunRecord


def read_out_of_fold_predictions(runs: list[str]) -> OutOfFoldPredictions:
    """The held-out predictions of runs, and of every run of a cross-validation; scores of the same image are averaged.

    Raises:
        UsageError: there are none, their classes differ, or an image has one label here and another there.
    """
    folders = [folder for run in runs for folder in _list_run_folders(Path(run))]
    names: list[str] = []
    labels: dict[str, str] = {}
    scores: dict[str, list[np.ndarray]] = defaultdict(list)
    for folder in folders:
        for path in [path for split in SPLITS if (path := folder / f"predictions_{split}.csv").is_file()]:
            found, files, own = read_predictions([path])
            if names and own != names:
                raise UsageError(f"{path} has other classes than the runs before it: {', '.join(own[:5])}.")
            names = own
            assert found.class_scores is not None
            for file_name, label, row in zip(files, found.labels, found.class_scores[0], strict=True):
                if labels.setdefault(file_name, own[label]) != own[label]:
                    raise UsageError(f"{file_name} is {labels[file_name]} in one run and {own[label]} in {folder}.")
                scores[file_name].append(row)
    if not scores:
        raise UsageError(
            f"{runs[0]} has no predictions of held-out images: pass a folder of hf-mae crossval or finetune."
        )
    means = {file_name: np.mean(rows, axis=0) for file_name, rows in scores.items()}
    return OutOfFoldPredictions(names, labels, means, read_record(folders[0]))


def list_crossval_runs(folder: Path) -> list[Path]:
    """The runs of a cross-validation on its largest share of the labels; none where the folder is another's."""
    if not (folder / CROSSVAL).is_file():
        return []
    summary = read_record(folder, CROSSVAL).crossval
    assert summary is not None, "a record of crossval has its summary"
    largest = max(run.fraction for run, _, _ in summary.runs)
    return [folder / run.folder for run, _, _ in summary.runs if run.fraction == largest]


def _list_run_folders(folder: Path) -> list[Path]:
    if found := list_crossval_runs(folder):
        return found
    if (folder / ALL_RESULTS).is_file():
        return [folder]
    raise UsageError(f"{folder} is no finished run: pass a folder of hf-mae crossval or finetune.")
