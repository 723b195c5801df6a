"""Fingerprint (hash) of the images, classes and splits of a dataset."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from ..compat.datasets import get_fingerprint
from ..files.caches import cached
from .columns import arrow_column, has_archived_images, image_byte_sizes

CHUNK_ROWS = 10_000  # rows that are converted to text at once


def data_fingerprint(splits: Mapping[str, Dataset]) -> str:
    """Computes a hash that depends on each image's name, size in bytes, class, patient and split, and not on the data
    folder.

    Args:
        splits: with `file_name`, and with `labels` if there are any.
    """
    if all(
        has_archived_images(dataset) for dataset in splits.values()
    ):  # `datasets` fingerprints identify the archives
        key = hashlib.sha256(repr([(split, get_fingerprint(part)) for split, part in sorted(splits.items())]).encode())
        name = f"fingerprints/{key.hexdigest()[:32]}.txt"
        return cached(name, lambda: _compute_fingerprint(splits), Path.read_text, Path.write_text)
    return _compute_fingerprint(splits)


def _compute_fingerprint(splits: Mapping[str, Dataset]) -> str:
    digest = hashlib.sha256()
    for split, dataset in sorted(splits.items()):
        classes = dataset.features["labels"].names if "labels" in dataset.column_names else []
        digest.update(f"{split}\0{classes}\n".encode())
        sizes = image_byte_sizes(dataset)
        columns = [arrow_column(dataset, "file_name"), pa.scalar(0) if sizes is None else sizes]
        columns += [arrow_column(dataset, name) if name in dataset.column_names else "" for name in ("labels", "group")]
        texts = [pc.cast(values, pa.string()) if not isinstance(values, str) else values for values in columns]
        rows = pc.binary_join_element_wise(*texts, "\0", null_handling="replace", null_replacement="None")
        for part in rows.take(pc.sort_indices(rows)).chunks:
            for start in range(0, len(part), CHUNK_ROWS):
                digest.update("".join(f"{row}\n" for row in part[start : start + CHUNK_ROWS].to_pylist()).encode())
    return digest.hexdigest()[:32]
