"""What images, classes and splits a run has seen, in one short text."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from ..compat.datasets import fingerprint_of
from ..files.caches import kept
from .entries import bytes_of_images, column_of, is_within_archives

ROWS = 10_000  # that are texts at a time


def data_fingerprint(splits: Mapping[str, Dataset]) -> str:
    """Changes with any image's name, size in bytes, class, patient or split; not with the place of the folder.

    Args:
        splits: with `file_name`, and `labels` unless there are none.
    """
    if all(is_within_archives(dataset) for dataset in splits.values()):  # then `datasets` knows whether they changed
        own = hashlib.sha256(repr([(split, fingerprint_of(part)) for split, part in sorted(splits.items())]).encode())
        name = f"fingerprints/{own.hexdigest()[:32]}.txt"
        return kept(name, lambda: _fingerprint(splits), Path.read_text, Path.write_text)
    return _fingerprint(splits)


def _fingerprint(splits: Mapping[str, Dataset]) -> str:
    digest = hashlib.sha256()
    for split, dataset in sorted(splits.items()):
        classes = dataset.features["labels"].names if "labels" in dataset.column_names else []
        digest.update(f"{split}\0{classes}\n".encode())
        sizes = bytes_of_images(dataset)
        columns = [column_of(dataset, "file_name"), pa.scalar(0) if sizes is None else sizes]
        columns += [column_of(dataset, name) if name in dataset.column_names else "" for name in ("labels", "group")]
        texts = [pc.cast(values, pa.string()) if not isinstance(values, str) else values for values in columns]
        rows = pc.binary_join_element_wise(*texts, "\0", null_handling="replace", null_replacement="None")
        for part in rows.take(pc.sort_indices(rows)).chunks:
            for start in range(0, len(part), ROWS):
                digest.update("".join(f"{row}\n" for row in part[start : start + ROWS].to_pylist()).encode())
    return digest.hexdigest()[:32]
