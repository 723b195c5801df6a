"""Loads labelled images (`--data_dir`, `--manifest`, `--benchmark`) as a `DatasetDict` of splits.

Nothing is copied: the image column contains paths, members of archives, or rows of tables. All invalid images are found
and listed here, before training.
"""

import dataclasses
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, Image

from ...compat.datasets import get_fingerprint
from ...errors import UsageError, did_you_mean, pluralize, warn
from ...settings.data import ON_BAD_IMAGE_CHOICES, ON_MISSING_CLASS_CHOICES, DataSourceArguments
from ..columns import arrow_column, get_column, select_rows
from ..exclusion_log import ExclusionReason, record_excluded, record_unused
from ..images.image_check import ImageCheck, check_image_files, check_table_images
from ..messages import DataMessage
from ..splits import SPLITS, extract_groups, hold_out, stratified_mask, warn_group_overlap
from .archive import DIGEST_COLUMN
from .assign import Assignment, Statements, assign
from .benchmark_loading import load_benchmark
from .benchmarks import find_benchmark
from .corrections import apply_label_corrections
from .frame_rows import group_frames
from .image_files import IMAGE_SUFFIXES
from .kinds import SourceOptions
from .pairs import read_pair_rows
from .samples import ImageCheckFn, join_names, valid_image_mask
from .source import Source, open_source

logger = logging.getLogger(__name__)


def load_image_folder(
    data_dir: str | Path,
    *,
    manifest: str | Path | None = None,
    val_fraction: float = 0.0,
    seed: int = 0,
    label_names: list[str] | None = None,
    on_bad_image: str = "error",
    num_workers: int | None = None,
    group_column: str | None = None,
    group_pattern: str | None = None,
    class_level: int | None = None,
    split_from: str | None = None,
    frames: str | None = None,
    on_missing_class: str = "error",
    allow_split_overlap: bool = False,
    check: ImageCheckFn | None = None,
) -> DatasetDict:
    """Loads a labelled image dataset in any usual layout.

    Args:
        data_dir: any of `SOURCES` (`data.sources.source`): a folder of class folders, below `train/ validation/ test/`
            or without splits (then all images are `train`), at any depth (the class is the image's own folder, or its
            parent if the folders are patients); a manifest; archives; tables; a Hub id.
        manifest: a manifest with file names relative to `data_dir`.
        val_fraction: fraction of the training images that is held out as `validation`, stratified by class, seeded.
        seed: seed of the held-out images.
        label_names: classes in the order of their ids (e.g. of a checkpoint); default: the sorted names of all splits.
        on_bad_image: `error` stops at unreadable files, empty class folders and images that are in two splits, and
            lists them all; `skip` excludes them (an image in two splits is removed from the training split) and logs
            them.
        num_workers: threads that read the files.
        group_column: manifest column with the patient or video, whose images are held out together; by default `group`
            if there is such a column.
        group_pattern: alternatively, a regular expression on `file_name` whose first group is the patient or video.
        split_from: what states the split of an image, if several things do and contradict each other: `column`, `path`
            or `archive` (the name of the archive or table file). `none`: all images are `train`.
        frames: frames of a file with several (TIFF, GIF, WebP, APNG, DICOM, MetaImage, video) that become images:
            `all`, `first` or `middle`. The file is their group, unless the images have groups. None: such files are
            rejected.
        class_level: level of the class folders, from 1 below the splits, if the layout is ambiguous.
        on_missing_class: `error` stops at a class with images in only one of several splits (often a typo); `keep`
            accepts it. Ignored with `label_names`.
        allow_split_overlap: accept images that are in two splits (for an audit, which lists them).
        check: function that finds the images that cannot be decoded, in place of decoding each of them only for that.

    Returns:
        Splits with `image` (decoded on access), `labels` (`ClassLabel`, the same for each split), `file_name`, and
        `group` if there are groups.

    Raises:
        UsageError: If the data or the options are invalid; the message lists all affected files.
    """
    if on_bad_image not in ON_BAD_IMAGE_CHOICES:
        raise UsageError(DataMessage.INVALID_ON_BAD_IMAGE, value=on_bad_image)
    if on_missing_class not in ON_MISSING_CLASS_CHOICES:
        raise UsageError(DataMessage.INVALID_ON_MISSING_CLASS, value=on_missing_class)
    if not 0.0 <= val_fraction < 1.0:
        raise UsageError(DataMessage.FRACTION_NOT_BELOW_1, name="val_fraction", value=val_fraction)
    options = SourceOptions(
        manifest=str(manifest) if manifest else None,
        split_from=split_from,
        class_level=class_level,
        group_column=group_column,
        group_pattern=group_pattern,
        frames=frames,
    )
    splits = load_labelled(
        open_source(str(data_dir), options), label_names, on_bad_image, num_workers, not allow_split_overlap, check
    )
    if on_missing_class == "error" and label_names is None:
        _check_classes_span_splits(splits, str(data_dir))
    return _finalize_splits(splits, val_fraction, seed)


def load_labelled(
    source: Source,
    label_names: list[str] | None,
    on_bad_image: str,
    num_workers: int | None,
    check_overlap: bool,
    check: ImageCheckFn | None,
) -> DatasetDict:
    """Loads the splits of a source, all with the same classes.

    Args:
        source: the source.
        label_names: classes in the order of their ids; default: as the source states it, or else sorted.
        on_bad_image, num_workers, check: see `load_image_folder`.
        check_overlap: reject images that are in two splits.
    """
    samples = source.samples
    assigned = assign_samples(source)
    file_names = arrow_column(samples.data, "file_name").to_pylist()
    if assigned.groups is None:
        assigned = dataclasses.replace(assigned, groups=group_frames(file_names))
    checked = _check_images(samples.data, assigned.splits, num_workers, check)
    mask = valid_image_mask(
        file_names,
        assigned.splits,
        checked,
        on_bad_image,
        empty_folders=samples.empty_folders,
        check_overlap=check_overlap,
    )
    if not any(mask):
        raise UsageError(DataMessage.NO_IMAGES_LEFT, root=source.uri, suffixes=IMAGE_SUFFIXES[:4])
    found = sorted({label for label, is_valid in zip(assigned.labels, mask) if is_valid})
    existing = list(dict.fromkeys([*(samples.class_names or ()), *found]))
    names = label_names or existing
    if unknown := [name for name in existing if name not in names]:
        raise UsageError(DataMessage.CLASSES_NOT_IN_CHECKPOINT, source=source.uri, unknown=unknown, known=names)
    return _build_splits(samples.data, assigned, mask, names)


def assign_samples(source: Source) -> Assignment:
    """Decides split, class and group of each image of a source."""
    samples, options = source.samples, source.options
    if samples.labels_required and "label" not in samples.stated:
        raise UsageError(DataMessage.ARCHIVE_WITHOUT_LABELS, source=source.uri)
    stated = Statements(
        root=source.uri,
        file_names=arrow_column(samples.data, "file_name").to_pylist(),
        paths=samples.paths(),
        stored_paths=samples.stored_paths and samples.stored_paths(),
        labels=samples.values("label"),
        split_columns={name: read() for name, read in samples.stated.items() if name not in ("label", "group")},
        groups=samples.values("group"),
        containers=samples.containers and samples.containers(),
        locate=samples.locate,
        is_final=samples.is_final,
    )
    return assign(
        stated,
        split_from=options.split_from,
        class_level=options.class_level,
        group_column=options.group_column,
        group_pattern=options.group_pattern,
    )


def _check_images(data: Dataset, splits: list[str], num_workers: int | None, check: ImageCheckFn | None) -> ImageCheck:
    """Finds the images that cannot be decoded, and the digests of the others."""
    if DIGEST_COLUMN in data.column_names:  # hf-mae shard checked the images
        return ImageCheck({}, arrow_column(data, DIGEST_COLUMN).to_pylist())
    images = arrow_column(data, "image")
    if pc.struct_field(images, "bytes").null_count == len(images):
        paths = pc.struct_field(images, "path").to_pylist()
        return check_image_files(paths, num_workers, check_fn=check and (lambda: check(paths, splits)))
    rows = data.select_columns(["image"]).cast_column("image", Image(decode=False))["image"]
    return check_table_images(rows, get_fingerprint(data), num_workers)


def _build_splits(data: Dataset, assigned: Assignment, mask: list[bool], names: list[str]) -> DatasetDict:
    """Builds one dataset per split that has images, with the columns of this package."""
    ids = {name: index for index, name in enumerate(names)}
    splits = DatasetDict()
    for split in SPLITS:
        rows = [row for row, is_valid in enumerate(mask) if is_valid and assigned.splits[row] == split]
        if not rows:
            continue
        part = select_rows(data, rows)
        file_names = arrow_column(part, "file_name").to_pylist()
        labels = [ids[assigned.labels[row]] for row in rows]
        part = part.select_columns(["image"]).add_column("labels", labels, feature=ClassLabel(names=names))
        part = part.add_column("file_name", file_names)
        if assigned.groups is not None:
            part = part.add_column("group", [assigned.groups[row] for row in rows])
        splits[split] = part
    return splits


def _check_classes_span_splits(splits: DatasetDict, root: str) -> None:
    """Raises UsageError if a class has images in one split only: a typo, or a class that cannot be evaluated."""
    if len(splits) < 2:
        return
    names = next(iter(splits.values())).features["labels"].names
    present = {split: {names[index] for index in set(dataset["labels"][:])} for split, dataset in splits.items()}
    splits_by_class = {name: [split for split in present if name in present[split]] for name in names}
    single = {name: class_splits[0] for name, class_splits in splits_by_class.items() if len(class_splits) == 1}
    if single:
        others = [name for name in names if name not in single]
        classes = [f"{name} in {split}{did_you_mean(name, others)}" for name, split in single.items()]
        raise UsageError(DataMessage.CLASSES_IN_ONE_SPLIT, root=root, classes=join_names(classes))


def _finalize_splits(splits: DatasetDict, val_fraction: float, seed: int) -> DatasetDict:
    """Holds out a validation split, and warns about missing classes and shared groups."""
    if val_fraction:
        if "validation" in splits:
            raise UsageError(DataMessage.VALIDATION_SPLIT_EXISTS, val_fraction=f"{val_fraction:g}")
        hold_out(splits, "validation", val_fraction, seed)
    splits = DatasetDict({split: splits[split] for split in SPLITS if split in splits})
    names = next(iter(splits.values())).features["labels"].names
    for split, dataset in splits.items():
        present = set(dataset["labels"][:])
        if missing := [name for index, name in enumerate(names) if index not in present]:
            warn(logger, DataMessage.CLASSES_WITHOUT_IMAGES, split=split, names=missing)
    warn_group_overlap({split: get_column(dataset, "group") or [] for split, dataset in splits.items()})
    return splits


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
        "split_from": source.split_from,
        "frames": source.frames,
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


def load_official_folds(
    data_args: DataSourceArguments, seed: int, model_class_names: list[str] | None
) -> list[DatasetDict]:
    """Loads the official folds of a benchmark, or else the single split of the data."""
    count = find_benchmark(data_args.benchmark).folds if data_args.benchmark else 0
    if not count:
        splits = read_splits(data_args, seed, model_class_names)
        if not {"train", "validation"} <= splits.keys():
            raise UsageError(DataMessage.NO_OFFICIAL_FOLDS, data_dir=data_args.data_dir, splits=list(splits))
        return [splits]
    return [
        read_splits(dataclasses.replace(data_args, fold=fold), seed, model_class_names) for fold in range(1, count + 1)
    ]
