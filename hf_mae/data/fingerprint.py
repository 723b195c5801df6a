"""What images, classes and splits a run has seen, in one short text."""

import hashlib
from collections.abc import Mapping

from datasets import Dataset

from ..files.members import sizes_of
from .entries import column, image_files


def data_fingerprint(splits: Mapping[str, Dataset]) -> str:
    """Changes with any image's name, size in bytes, class, patient or split; not with the place of the folder.

    Args:
        splits: with `file_name`, and `labels` unless there are none.
    """
    digest = hashlib.sha256()
    for split, dataset in sorted(splits.items()):
        names = dataset["file_name"][:]
        sizes = sizes_of(image_files(dataset)) or [0] * len(names)
        labels, groups = column(dataset, "labels"), column(dataset, "group")
        classes = dataset.features["labels"].names if labels is not None else []
        digest.update(f"{split}\0{classes}\n".encode())
        rows = zip(names, sizes, labels or [""] * len(names), groups or [""] * len(names))
        for row in sorted("\0".join(map(str, row)) for row in rows):
            digest.update(f"{row}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]
