"""The splits: what they are called, and which of them judges."""

import re
from collections.abc import Container, Mapping
from typing import TypeVar

from ..errors import UsageError

Part = TypeVar("Part")

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
BESIDE = {
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
HELD_OUT = ("selection", "validation", "test")


def split_named(name: str) -> str | None:
    """The split that a folder or a word names: `Test`, `test_set`, `train_and_validation_sets`; None: it names none.

    Training images that are meant for validation too are training images.
    """
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word and word not in BESIDE]
    found = {SPLIT_NAMES.get(word) for word in words}
    if len(found) == 1:
        return found.pop()
    return "train" if found == {"train", "validation"} else None


def judge_of(splits: Container[str]) -> str | None:
    """The split whose scores choose the epoch: `selection` where there is one, else `validation`; None: neither is."""
    return next((split for split in ("selection", "validation") if split in splits), None)


def chosen_split(splits: Mapping[str, Part], split: str, data_dir: str | None) -> Part:
    """The split that was asked for.

    Raises:
        UsageError: the data set has none of that name.
    """
    if split not in splits:
        raise UsageError(f"{data_dir} has no split {split}; it has {', '.join(splits)}.")
    return splits[split]
