"""Names of the splits, and the split that selects the epoch."""

import re
from collections.abc import Container, Mapping
from typing import TypeVar

from ..errors import UsageError
from .messages import DataMessage

SplitT = TypeVar("SplitT")

# Word in a name -> split.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "trainval": "train",
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "holdout": "test",
}
# Words that are ignored in names of splits.
STOPWORDS = {
    "set",
    "sets",
    "split",
    "splits",
    "data",
    "dataset",
    "subset",
    "images",
    "image",
    "imgs",
    "frames",
    "and",
    "the",
}

SPLITS = ("train", "validation", "test")
EVAL_SPLITS = ("selection", "validation", "test")


def parse_split_name(name: str) -> str | None:
    """Returns the split of a folder name or word: `Test`, `test_set`, `train_and_validation_sets`; None if it is not a
    split.

    A name with both `train` and `validation` is the training split.
    """
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word and word not in STOPWORDS]
    splits = {SPLIT_NAMES.get(word) for word in words}
    if len(splits) == 1:
        return splits.pop()
    return "train" if splits == {"train", "validation"} else None


def selection_split(splits: Container[str]) -> str | None:
    """Returns the split whose scores select the epoch: `selection`, or else `validation`; None if there is neither."""
    return next((split for split in ("selection", "validation") if split in splits), None)


def get_split(splits: Mapping[str, SplitT], split: str, data_dir: str | None) -> SplitT:
    """Returns a split by name.

    Raises:
        UsageError: If the dataset does not have it.
    """
    if split not in splits:
        raise UsageError(DataMessage.SPLIT_NOT_FOUND, data_dir=data_dir, split=split, splits=list(splits))
    return splits[split]
