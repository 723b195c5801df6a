"""What a study says of its images: how many were found and left out, and what the splits hold."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from .exclusion_log import ExclusionLog
from .samples import get_column
from .tables import read_table

MAX_VALUES = 12  # of a manifest's column that is counted
STANDARD_COLUMNS = ("file_name", "label", "split", "group")


def describe_cohort(
    exclusion_log: ExclusionLog, splits: Mapping[str, Dataset], manifest: Path | None
) -> dict[str, Any]:
    """What a study says of its images: the notes, and of each split `images`, `groups` (patients or videos; None: not
    known) and `classes` (images by class); `columns` of a manifest with few values, by split.

    Args:
        manifest: the table that the images are of; None: there is none.
    """
    held = {}
    for split, dataset in splits.items():
        names, groups = dataset.features["labels"].names, get_column(dataset, "group")
        counts = np.bincount(dataset["labels"][:], minlength=len(names))
        held[split] = {
            "images": len(dataset),
            "groups": len(set(groups)) if groups else None,
            "classes": dict(zip(names, counts.tolist())),
        }
    return {**exclusion_log, "splits": held, "columns": _count_column_values(splits, manifest)}


def _count_column_values(splits: Mapping[str, Dataset], manifest: Path | None) -> dict[str, dict[str, dict[str, int]]]:
    """Images by column, split and value."""
    if manifest is None:
        return {}
    rows = {str(row.get("file_name")): row for row in read_table(manifest)}
    names = [str(name) for name in next(iter(rows.values())) if name not in STANDARD_COLUMNS]
    files = {split: [str(name) for name in get_column(dataset, "file_name") or []] for split, dataset in splits.items()}
    found = {}
    for name in names:
        values = {
            split: [str(rows.get(file, {}).get(name) or "not known").strip() for file in own]
            for split, own in files.items()
        }
        known = sorted({value for own in values.values() for value in own})
        if 1 < len(known) <= MAX_VALUES:
            found[name] = {split: {value: own.count(value) for value in known} for split, own in values.items()}
    return found
