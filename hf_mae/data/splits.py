"""The splits: what they are called, and which of them judges."""

from collections.abc import Container, Mapping
from typing import TypeVar

from ..errors import UsageError

Part = TypeVar("Part")

# Folder names that are splits, by the split they name.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}

SPLITS = ("train", "validation", "test")
HELD_OUT = ("selection", "validation", "test")


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
