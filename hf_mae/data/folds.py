"""Cross-validation folds: the official folds of a benchmark, or stratified folds."""

import dataclasses
import logging

import numpy as np
from datasets import DatasetDict, concatenate_datasets
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from ..errors import UsageError, warn
from ..settings.data import DataArguments
from .messages import DataMessage
from .sources.benchmarks import find_benchmark
from .sources.split_loading import read_splits

logger = logging.getLogger(__name__)


def load_official_folds(data_args: DataArguments, seed: int, model_class_names: list[str] | None) -> list[DatasetDict]:
    """Loads the official folds of a benchmark, or else the single split of the data."""
    count = find_benchmark(data_args.benchmark).folds if data_args.benchmark else 0
    if not count:
        splits = read_splits(data_args, seed, model_class_names)
        if not {"train", "validation"} <= splits.keys():
            raise UsageError(DataMessage.NO_OFFICIAL_FOLDS, data_dir=data_args.data_dir, splits=list(splits))
        return [splits]
    return [
        read_splits(dataclasses.replace(data_args, fold=fold), seed, model_class_names) for fold in range(1, count + 1)
    ]


def make_stratified_folds(splits: DatasetDict, num_folds: int) -> list[DatasetDict]:
    """Splits the training and validation images into `num_folds` folds, stratified by class; deterministic.

    Args:
        splits: `train`, and optionally `validation` (which is merged with it) and `test` (which is not used). Images of
            a `group` (patient or video) stay in one fold.
        num_folds: number of folds.
    """
    if "test" in splits:
        logger.info(
            "The test split (%d images) is not used: the folds are made from the training and validation images. To "
            "evaluate a run on it, use hf-mae evaluate --split test.",
            len(splits["test"]),
        )
    images = concatenate_datasets([splits[split] for split in ("train", "validation") if split in splits])
    labels = np.asarray(images["labels"][:])
    smallest = np.bincount(labels)[np.unique(labels)].min()
    if not 2 <= num_folds <= smallest:
        raise UsageError(DataMessage.TOO_MANY_FOLDS, num_folds=num_folds, smallest=smallest)
    groups, splitter = None, StratifiedKFold(num_folds, shuffle=True, random_state=0)
    if "group" in images.column_names:
        groups, splitter = images["group"][:], StratifiedGroupKFold(num_folds, shuffle=True, random_state=0)
        if len(set(groups)) < num_folds:
            raise UsageError(DataMessage.MORE_FOLDS_THAN_GROUPS, num_folds=num_folds, count=len(set(groups)))
    return [
        DatasetDict({"train": images.select(train), "validation": images.select(validation)})
        for train, validation in splitter.split(labels, labels, groups)
    ]


def check_folds(folds: list[DatasetDict]) -> None:
    """Raises UsageError if a fold has no training image of a class, and warns if it has no validation image of one."""
    names = folds[0]["train"].features["labels"].names
    for number, fold in enumerate(folds, 1):
        counts = {split: np.bincount(dataset["labels"][:], minlength=len(names)) for split, dataset in fold.items()}
        has_images = np.stack(list(counts.values())).sum(0) > 0
        if missing := [name for i, name in enumerate(names) if has_images[i] and not counts["train"][i]]:
            raise UsageError(DataMessage.FOLD_WITHOUT_TRAINING_IMAGES, fold=number, names=missing)
        if missing := [name for i, name in enumerate(names) if has_images[i] and not counts["validation"][i]]:
            warn(logger, DataMessage.FOLD_WITHOUT_VALIDATION_IMAGES, fold=number, names=missing)
