"""The splits: what they are called, and which of them judges."""

import re
from collections.abc import Container, Mapping
from typing import TypeVar

from ..errors import UsageError

SplitT = TypeVar("SplitT")

# Words that name splits, by the split they name.
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
# Words that stand beside them, and name nothing.
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
    """The split that a folder or a word names: `Test`, `test_set`, `train_and_validation_sets`; None: it names none.

    Training images that are meant for validation too are training images.
    """
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word and word not in STOPWORDS]
    found = {SPLIT_NAMES.get(word) for word in words}
    if len(found) == 1:
        return found.pop()
    return "train" if found == {"train", "validation"} else None


def selection_split(splits: Container[str]) -> str | None:
    """The split whose scores choose the epoch: `selection` where there is one, else `validation`; None: neither is."""
    return next((split for split in ("selection", "validation") if split in splits), None)


def get_split(splits: Mapping[str, SplitT], split: str, data_dir: str | None) -> SplitT:
    """The split that was asked for.

    Raises:
        UsageError: the data set has none of that name.
    """
    if split not in splits:
        raise UsageError(f"{data_dir} has no split {split}; it has {', '.join(splits)}.")
    return splits[split]
