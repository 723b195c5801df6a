"""Folds of a cross-validation: a benchmark's official ones, or stratified ones of our own."""

import dataclasses
import logging

import numpy as np
from datasets import DatasetDict, concatenate_datasets
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from ..errors import UsageError
from ..settings.data import DataArguments
from .benchmarks import find_benchmark
from .split_loading import read_splits

logger = logging.getLogger(__name__)


def load_official_folds(data_args: DataArguments, seed: int, model_class_names: list[str] | None) -> list[DatasetDict]:
    """The official folds of a benchmark that has them, or the one split that the data comes with."""
    count = find_benchmark(data_args.benchmark).folds if data_args.benchmark else 0
    if not count:
        splits = read_splits(data_args, seed, model_class_names)
        if not {"train", "validation"} <= splits.keys():
            raise UsageError(
                f"--folds official needs a validation split, and {data_args.data_dir} has {', '.join(splits)}: "
                "pass a number of --folds."
            )
        return [splits]
    return [
        read_splits(dataclasses.replace(data_args, fold=fold), seed, model_class_names) for fold in range(1, count + 1)
    ]


def make_stratified_folds(splits: DatasetDict, num_folds: int) -> list[DatasetDict]:
    """`num_folds` folds of the training and validation images together, stratified by class, always the same ones.

    Args:
        splits: `train`, and perhaps `validation` (which joins it) and `test` (which is left alone). Images of one
            `group` (patient or video), where there are groups, stay in one fold.
    """
    if "test" in splits:
        logger.info(
            "The test split (%d images) is left out: folds are of the training and validation images alone. hf-mae "
            "evaluate --split test scores a run on it.",
            len(splits["test"]),
        )
    whole = concatenate_datasets([splits[split] for split in ("train", "validation") if split in splits])
    labels = np.asarray(whole["labels"][:])
    smallest = np.bincount(labels)[np.unique(labels)].min()
    if not 2 <= num_folds <= smallest:
        raise UsageError(
            f"--folds must lie between 2 and the size of the smallest class, {smallest}; it is {num_folds}."
        )
    groups, splitter = None, StratifiedKFold(num_folds, shuffle=True, random_state=0)
    if "group" in whole.column_names:
        groups, splitter = whole["group"][:], StratifiedGroupKFold(num_folds, shuffle=True, random_state=0)
        if len(set(groups)) < num_folds:
            raise UsageError(f"--folds {num_folds} are more than there are patients or videos ({len(set(groups))}).")
    return [
        DatasetDict({"train": whole.select(train), "validation": whole.select(held_out)})
        for train, held_out in splitter.split(labels, labels, groups)
    ]


def check_folds(folds: list[DatasetDict]) -> None:
    """Refuses folds of which one cannot learn a class, and warns of one that cannot judge it."""
    names = folds[0]["train"].features["labels"].names
    for number, fold in enumerate(folds, 1):
        counts = {split: np.bincount(dataset["labels"][:], minlength=len(names)) for split, dataset in fold.items()}
        everywhere = np.stack(list(counts.values())).sum(0) > 0
        if lacking := [name for i, name in enumerate(names) if everywhere[i] and not counts["train"][i]]:
            raise UsageError(
                f"Fold {number} has no training image of {', '.join(lacking)}: all its images are held out together. "
                "Use other --folds or groups, or leave the class out."
            )
        if lacking := [name for i, name in enumerate(names) if everywhere[i] and not counts["validation"][i]]:
            logger.warning("Fold %d has no validation image of %s.", number, ", ".join(lacking))
