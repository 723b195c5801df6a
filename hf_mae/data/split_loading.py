"""What `--data_dir`, `--manifest` and `--benchmark` name -> a `DatasetDict`."""

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict

from ..errors import UsageError, pluralize
from ..settings.data import DataSourceArguments
from .benchmark_loading import load_benchmark
from .benchmarks import find_benchmark
from .corrections import apply_label_corrections
from .exclusion_log import record_excluded, record_unused
from .folders import load_image_folder
from .pairs import read_pair_rows
from .samples import ImageCheckFn, join_names
from .splitting import extract_groups, hold_out, stratified_mask

logger = logging.getLogger(__name__)


def load_splits(
    source: DataSourceArguments,
    seed: int = 0,
    model_class_names: list[str] | None = None,
    label_names: list[str] | None = None,
    check: ImageCheckFn | None = None,
) -> DatasetDict:
    """The splits, with `train` reduced by `train_fraction`, and `selection` taken out of it by `select_on`.

    Args:
        seed: of the shares.
        model_class_names: class names of a checkpoint, by class id; its order is kept where the data has the same ones.
        label_names: class names that the data must lie within, whatever it has.
        check: as of `load_image_folder`.
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
    """The splits as they are, the training part whole (and files that stand in two splits in both, if asked), with the
    labels that a person decided on."""
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
    _check_option_combination(source)
    if source.benchmark:
        splits = _load_benchmark_splits(source, seed, check)
        if source.group_pattern and find_benchmark(source.benchmark).group_pattern:
            raise UsageError(f"{source.benchmark} knows its patients or videos: leave out --group_pattern.")
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
        "keep_repeated": allow_split_overlap,
        "check": check,
    }
    splits = load_image_folder(str(source.data_dir), **options, label_names=label_names)
    names = next(iter(splits.values())).features["labels"].names
    if source.class_order and label_names is None:
        model_class_names = resolve_class_order(source.class_order, names, str(source.data_dir))
    if model_class_names and model_class_names != names and set(model_class_names) == set(names):
        splits = load_image_folder(str(source.data_dir), **options, label_names=model_class_names)
    return _exclude_pairs(splits, source.exclude_pairs) if source.exclude_pairs else splits


def _check_option_combination(source: DataSourceArguments) -> None:
    """Refuses what would say nothing: of a benchmark, or of data that is none."""
    if source.benchmark:
        if source.class_order:
            raise UsageError("--class_order is for data of your own: a --benchmark knows its own order.")
        if source.group_column:
            raise UsageError("--group_column is a column of a manifest; for a --benchmark use --group_pattern.")
        if source.manifest or source.class_level:
            raise UsageError("--manifest and --class_level are for data of your own: a --benchmark knows its classes.")
    elif source.split_file or source.agreement or source.fold != 1:
        raise UsageError("--split_file, --fold and --agreement belong to a --benchmark.")


def resolve_class_order(class_order: list[str], names: list[str], source_name: str) -> list[str]:
    """The classes in the order that is asked for (`sorted`: by name, numbers by value).

    Raises:
        UsageError: it names other classes than there are.
    """
    if class_order == ["sorted"] and "sorted" not in names:
        return sorted(
            names, key=lambda name: [(not p.isdigit(), int(p) if p.isdigit() else p) for p in _split_digits(name)]
        )
    if sorted(class_order) != sorted(names):
        raise UsageError(
            f"--class_order names {', '.join(class_order)}, and {source_name} has the classes {', '.join(names)}: name each once."
        )
    return class_order


def _split_digits(name: str) -> list[str]:
    return [part for part in re.split(r"(\d+)", name) if part]


def has_ordered_classes(source: DataSourceArguments) -> bool:
    """Whether the classes are grades, in the order of their ids."""
    return bool(source.class_order) or bool(source.benchmark and find_benchmark(source.benchmark).ordered)


def reduce_training(splits: DatasetDict, source: DataSourceArguments, seed: int) -> DatasetDict:
    """`train` reduced to `train_fraction` (nested by size), and a `selection` split of `select_on` of what is left."""
    for name, value, low in (
        ("train_fraction", source.train_fraction, False),
        ("selection_fraction", source.selection_fraction, True),
    ):
        if not (0.0 < value <= 1.0 or (low and value == 0.0)) or (low and value == 1.0):
            raise UsageError(
                f"{name} must be {'at least 0 and below 1' if low else 'above 0 and at most 1'}, not {value}."
            )
    splits = DatasetDict(splits)
    if source.train_fraction < 1.0 and "train" in splits:
        labels = splits["train"]["labels"][:]
        chosen = stratified_mask(labels, source.train_fraction, seed, leave_remainder=False)
        record_excluded(f"training images beyond train_fraction {source.train_fraction:g}", int((~chosen).sum()))
        splits["train"] = splits["train"].select(np.flatnonzero(chosen))
    if source.selection_fraction:
        hold_out(splits, "selection", source.selection_fraction, seed)
    return splits


def _exclude_pairs(splits: DatasetDict, path: str) -> DatasetDict:
    names = {row[f"filename{side}"] for row in read_pair_rows(Path(path)) for side in "12"}
    kept, left_out = DatasetDict(), 0
    for split, dataset in splits.items():
        keep = [index for index, name in enumerate(dataset["file_name"][:]) if name not in names]
        left_out += len(dataset) - len(keep)
        if keep:
            kept[split] = dataset.select(keep)
    if not left_out:
        raise UsageError(f"{path} names no image of the data set: its file names are relative to --data_dir.")
    logger.info("Left out as %s says: %s.", path, pluralize(left_out, "image"))
    record_excluded(f"excluded by {Path(path).name}", left_out)
    return kept


def _load_benchmark_splits(source: DataSourceArguments, seed: int, check: ImageCheckFn | None) -> DatasetDict:
    benchmark = find_benchmark(str(source.benchmark))
    if benchmark.has_split and source.val_fraction:
        raise UsageError(f"{source.benchmark} has official splits: leave out --val_fraction.")
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
        logger.warning(
            "%s, and left out: %s",
            pluralize(len(data.conflicting_labels), "image", "has two labels", "have two labels"),
            join_names(data.conflicting_labels),
        )
        record_unused("two labels", len(data.conflicting_labels))
    record_unused("excluded as published", data.num_excluded)
    others = sum(data.unused.values()) - data.num_excluded - len(data.conflicting_labels)
    record_unused("of the archive, not of the benchmark", max(0, others))
    if data.unused:
        logger.info("Not of the split: %s", ", ".join(f"{count} in {folder}" for folder, count in data.unused.items()))
    if data.missing:
        logger.warning("Missing: %s", join_names(sorted(data.missing), show_all=True))
    logger.info("Licence of the data: %s. Please cite: %s", benchmark.licence, benchmark.citation)
    return data.splits
