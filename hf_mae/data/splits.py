"""The splits: what they are called, and which of them judges."""

from collections.abc import Container

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
