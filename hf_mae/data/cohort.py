"""Dataset description for a study: numbers of images, patients and classes per split, and exclusions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from datasets import Dataset, concatenate_datasets

from .columns import get_column
from .exclusion_log import Exclusion, ExclusionLog, Relabelling
from .sources.tables import read_table

MAX_VALUES = 12  # distinct values of a manifest column that are counted
STANDARD_COLUMNS = ("file_name", "label", "split", "group")


@dataclass(frozen=True)
class SplitDescription:
    """Numbers of images, of patients or videos (None: unknown), and of images per class."""

    images: int
    groups: int | None
    classes: dict[str, int]


@dataclass(frozen=True)
class Cohort:
    """The images of a run.

    Args:
        total, excluded, relabelled: as in `ExclusionLog`.
        splits: the images that are used, by split.
        columns: images by column of the manifest, split and value; columns with few values only.
    """

    total: int | None
    excluded: list[Exclusion]
    splits: dict[str, SplitDescription]
    columns: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    relabelled: Relabelling | None = None


def describe_cohort(exclusion_log: ExclusionLog, splits: Mapping[str, Dataset]) -> Cohort:
    """Describes the images of a run.

    Args:
        exclusion_log: total and excluded images.
        splits: the images that are used.
    """
    described = {}
    for split, dataset in splits.items():
        names, groups = dataset.features["labels"].names, get_column(dataset, "group")
        counts = np.bincount(dataset["labels"][:], minlength=len(names))
        num_groups = len(set(groups)) if groups else None
        described[split] = SplitDescription(len(dataset), num_groups, dict(zip(names, counts.tolist())))
    columns = _count_column_values(splits, exclusion_log.manifest)
    return Cohort(exclusion_log.total, exclusion_log.excluded, described, columns, exclusion_log.relabelled)


def describe_folds(exclusion_log: ExclusionLog, folds: Sequence[Mapping[str, Dataset]]) -> Cohort:
    """Describes the images of a cross-validation, each once: `test` has those that all folds test, `cross-validation`
    the others. The total is None if the folds have different images."""
    if len(folds) == 1:
        return describe_cohort(exclusion_log, folds[0])
    tested = set.intersection(*(set(fold["test"]["file_name"][:]) if "test" in fold else set() for fold in folds))
    seen: set[str] = set()
    parts: dict[str, list[Dataset]] = {"cross-validation": [], "test": []}
    for dataset in (dataset for fold in folds for dataset in fold.values()):
        names = dataset["file_name"][:]
        for part in parts:
            rows = [i for i, name in enumerate(names) if name not in seen and (name in tested) == (part == "test")]
            parts[part] += [dataset.select(rows)] if rows else []
        seen.update(names)
    cohort = describe_cohort(exclusion_log, {name: concatenate_datasets(part) for name, part in parts.items() if part})
    accounted = len(seen) + sum(step.images for step in cohort.excluded)
    return cohort if cohort.total == accounted else replace(cohort, total=None)


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
