"""Loads the splits of `--data_dir`, `--manifest` and `--benchmark` as a `DatasetDict`."""

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict

from ...errors import UsageError, pluralize, warn
from ...settings.data import DataSourceArguments
from ..checks.corrections import apply_label_corrections
from ..checks.pairs import read_pair_rows
from ..exclusion_log import ExclusionReason, record_excluded, record_unused
from ..messages import DataMessage
from ..splitting import extract_groups, hold_out, stratified_mask
from .benchmark_loading import load_benchmark
from .benchmarks import find_benchmark
from .folders import load_image_folder
from .samples import ImageCheckFn, join_names

logger = logging.getLogger(__name__)


def load_splits(
    source: DataSourceArguments,
    seed: int = 0,
    model_class_names: list[str] | None = None,
    label_names: list[str] | None = None,
    check: ImageCheckFn | None = None,
) -> DatasetDict:
    """Loads the splits, with `train` reduced to `train_fraction`, and `selection` held out from it
    (`selection_fraction`).

    Args:
        source: the data.
        seed: seed of the fractions.
        model_class_names: class names of a checkpoint, by id; their order is used if the data has the same classes.
        label_names: class names that define the class ids; the data may not have other classes.
        check: see `load_image_folder`.
    """
    return reduce_training(read_splits(source, seed, model_class_names, label_names, check=check), source, seed)


def read_splits(
    source: DataSourceArguments,
    seed: int = 0,
    model_class_names: list[str] | None = None,
    label_names: list[str] | None = None,
    allow_split_overlap: bool = False,
    check: ImageCheckFn | None = None,
) -> DatasetDict:
    """Reads the complete splits (optionally with the images that are in two splits), with corrected labels."""
    splits = _load_unmodified(source, seed, model_class_names, label_names, allow_split_overlap, check)
    return apply_label_corrections(splits, source.corrections) if source.corrections else splits


def _load_unmodified(
    source: DataSourceArguments,
    seed: int,
    model_class_names: list[str] | None,
    label_names: list[str] | None,
    allow_split_overlap: bool,
    check: ImageCheckFn | None,
) -> DatasetDict:
    if source.benchmark:
        splits = _load_benchmark_splits(source, seed, check)
        if source.group_pattern and find_benchmark(source.benchmark).group_pattern:
            raise UsageError(DataMessage.GROUP_PATTERN_WITH_BENCHMARK, benchmark=source.benchmark)
        if source.group_pattern:
            for split, dataset in splits.items():
                groups = extract_groups(dataset["file_name"][:], source.group_pattern)
                splits[split] = dataset.add_column("group", groups)
        return splits
    options: dict[str, Any] = {
        "manifest": source.manifest,
        "val_fraction": source.val_fraction,
        "seed": seed,
        "on_bad_image": source.on_bad_image,
        "num_workers": source.preprocessing_num_workers,
        "group_column": source.group_column,
        "group_pattern": source.group_pattern,
        "class_level": source.class_level,
        "on_missing_class": source.on_missing_class,
        "allow_split_overlap": allow_split_overlap,
        "check": check,
    }
    splits = load_image_folder(str(source.data_dir), **options, label_names=label_names)
    names = next(iter(splits.values())).features["labels"].names
    if source.class_order and label_names is None:
        model_class_names = resolve_class_order(source.class_order, names, str(source.data_dir))
    if model_class_names and model_class_names != names and set(model_class_names) == set(names):
        splits = load_image_folder(str(source.data_dir), **options, label_names=model_class_names)
    return _exclude_pairs(splits, source.exclude_pairs) if source.exclude_pairs else splits


def resolve_class_order(class_order: list[str], names: list[str], source_name: str) -> list[str]:
    """Returns the classes in the requested order (`sorted`: by name, with numbers by value).

    Raises:
        UsageError: If the order does not have the same classes.
    """
    if class_order == ["sorted"] and "sorted" not in names:
        return sorted(
            names, key=lambda name: [(not p.isdigit(), int(p) if p.isdigit() else p) for p in _split_digits(name)]
        )
    if sorted(class_order) != sorted(names):
        raise UsageError(DataMessage.CLASS_ORDER_DIFFERS, source=source_name, class_order=class_order, names=names)
    return class_order


def _split_digits(name: str) -> list[str]:
    return [part for part in re.split(r"(\d+)", name) if part]


def has_ordered_classes(source: DataSourceArguments) -> bool:
    """Whether the classes are ordered grades."""
    return bool(source.class_order) or bool(source.benchmark and find_benchmark(source.benchmark).ordered)


def reduce_training(splits: DatasetDict, source: DataSourceArguments, seed: int) -> DatasetDict:
    """Reduces `train` to `train_fraction` (nested subsets), and then holds out `selection` (`selection_fraction`)."""
    splits = DatasetDict(splits)
    if source.train_fraction < 1.0 and "train" in splits:
        labels = splits["train"]["labels"][:]
        mask = stratified_mask(labels, source.train_fraction, seed, leave_remainder=False)
        record_excluded(ExclusionReason.BEYOND_TRAIN_FRACTION, int((~mask).sum()), detail=source.train_fraction)
        splits["train"] = splits["train"].select(np.flatnonzero(mask))
    if source.selection_fraction:
        hold_out(splits, "selection", source.selection_fraction, seed)
    return splits


def _exclude_pairs(splits: DatasetDict, path: str) -> DatasetDict:
    names = {row[f"filename{side}"] for row in read_pair_rows(Path(path)) for side in "12"}
    filtered, num_excluded = DatasetDict(), 0
    for split, dataset in splits.items():
        rows = [row for row, name in enumerate(dataset["file_name"][:]) if name not in names]
        num_excluded += len(dataset) - len(rows)
        if rows:
            filtered[split] = dataset.select(rows)
    if not num_excluded:
        raise UsageError(DataMessage.PAIRS_MATCH_NO_IMAGE, path=path)
    logger.info("%s excluded by %s.", pluralize(num_excluded, "image"), path)
    record_excluded(ExclusionReason.LISTED_IN_FILE, num_excluded, detail=Path(path).name)
    return filtered


def _load_benchmark_splits(source: DataSourceArguments, seed: int, check: ImageCheckFn | None) -> DatasetDict:
    benchmark = find_benchmark(str(source.benchmark))
    if benchmark.has_split and source.val_fraction:
        raise UsageError(DataMessage.VAL_FRACTION_WITH_OFFICIAL_SPLIT, benchmark=source.benchmark)
    options: dict[str, Any] = (
        {} if benchmark.has_split or not source.val_fraction else {"val_fraction": source.val_fraction}
    )
    data = load_benchmark(
        str(source.benchmark),
        str(source.data_dir),
        fold=source.fold,
        seed=seed,
        split_files=source.split_file,
        exclude_pairs=source.exclude_pairs,
        on_bad_image=source.on_bad_image,
        num_workers=source.preprocessing_num_workers,
        agreement=source.agreement,
        check=check,
        **options,
    )
    counts = ", ".join(f"{split} {len(dataset)}" for split, dataset in data.splits.items())
    published = "as published" if data.matches_published else f"published: {benchmark.split_counts(source.fold)}"
    logger.info(
        "%s: %s (%s); %d excluded, %d missing, %d other images in the archive",
        benchmark.title,
        counts,
        published,
        data.num_excluded,
        len(data.missing),
        sum(data.unused.values()),
    )
    if data.conflicting_labels:
        count, names = len(data.conflicting_labels), join_names(data.conflicting_labels)
        warn(logger, DataMessage.CONFLICTING_LABELS_EXCLUDED, count=count, names=names)
        record_unused(ExclusionReason.TWO_LABELS, count)
    record_unused(ExclusionReason.EXCLUDED_AS_PUBLISHED, data.num_excluded)
    num_others = sum(data.unused.values()) - data.num_excluded - len(data.conflicting_labels)
    record_unused(ExclusionReason.NOT_IN_BENCHMARK, max(0, num_others))
    if data.unused:
        logger.info("Not in a split: %s", ", ".join(f"{count} in {folder}" for folder, count in data.unused.items()))
    if data.missing:
        names = join_names(sorted(data.missing), show_all=True)
        warn(logger, DataMessage.MISSING_IMAGES_SKIPPED, count=len(data.missing), names=names)
    logger.info("Licence of the dataset: %s. Please cite: %s", benchmark.licence, benchmark.citation)
    return data.splits
