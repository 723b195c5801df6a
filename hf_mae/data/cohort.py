"""Dataset description for a study: numbers of images, patients and classes per split, and exclusions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from .columns import get_column
from .exclusion_log import ExclusionLog
from .sources.tables import read_table

MAX_VALUES = 12  # distinct values of a manifest column that are counted
STANDARD_COLUMNS = ("file_name", "label", "split", "group")


def describe_cohort(exclusion_log: ExclusionLog, splits: Mapping[str, Dataset]) -> dict[str, Any]:
    """Returns the exclusion log with `splits` and `columns`.

    `splits` has `images`, `groups` (number of patients or videos; None if unknown) and `classes` (images per class) of
    each split. `columns` has the images per split and value, for each other column of the manifest with few values.

    Args:
        exclusion_log: total and excluded images.
        splits: the images that are used.
    """
    described = {}
    for split, dataset in splits.items():
        names, groups = dataset.features["labels"].names, get_column(dataset, "group")
        counts = np.bincount(dataset["labels"][:], minlength=len(names))
        described[split] = {
            "images": len(dataset),
            "groups": len(set(groups)) if groups else None,
            "classes": dict(zip(names, counts.tolist())),
        }
    flow = {name: value for name, value in exclusion_log.items() if name != "manifest"}
    columns = _count_column_values(splits, exclusion_log.get("manifest"))
    return {**flow, "splits": described, "columns": columns}


def _count_column_values(splits: Mapping[str, Dataset], manifest: Path | None) -> dict[str, dict[str, dict[str, int]]]:
    """Counts images by column, split and value."""
    if manifest is None:
        return {}
    rows = {str(row.get("file_name")): row for row in read_table(manifest)}
    columns = [str(name) for name in next(iter(rows.values())) if name not in STANDARD_COLUMNS]
    files = {split: [str(name) for name in get_column(dataset, "file_name") or []] for split, dataset in splits.items()}
    counts = {}
    for column in columns:
        values_by_split = {
            split: [str(rows.get(name, {}).get(column) or "not known").strip() for name in names]
            for split, names in files.items()
        }
        distinct = sorted({value for values in values_by_split.values() for value in values})
        if 1 < len(distinct) <= MAX_VALUES:
            counts[column] = {
                split: {value: values.count(value) for value in distinct} for split, values in values_by_split.items()
            }
    return counts
