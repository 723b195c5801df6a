"""Loads labelled images (`--data_dir`, `--manifest`, `--benchmark`) as a `DatasetDict` of splits.

Nothing is copied: the image column contains paths, members of archives, or rows of tables. All invalid images are found
and listed here, before training.
"""

import dataclasses
import logging
from pathlib import Path

import numpy as np
from datasets import ClassLabel, DatasetDict, concatenate_datasets

from ...errors import UsageError, did_you_mean, inform, pluralize, warn
from ...settings.benchmarks import Benchmark, find_benchmark
from ...settings.data import ON_BAD_IMAGE_CHOICES, ON_MISSING_CLASS_CHOICES, DataSourceArguments
from ..columns import arrow_column, get_column, select_rows
from ..exclusion_log import ExclusionReason, record_excluded, record_manifest, record_unused
from ..messages import DataMessage
from ..splits import SPLITS, hold_out, stratified_mask, warn_group_overlap
from .assign import Assignment, Statements, assign
from .class_order import order_classes
from .corrections import apply_label_corrections
from .frame_rows import group_frames
from .image_files import IMAGE_SUFFIXES
from .kinds import BenchmarkOptions, Samples, SourceOptions
from .pairs import find_paired_images
from .samples import ImageCheckFn, check_samples, join_names, valid_image_mask
from .source import Source, open_source
from .tables import check_class_names

logger = logging.getLogger(__name__)

DEFAULT_VAL_FRACTION = 0.2  # of a benchmark without an official split


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
) -> DatasetDict:
    """Loads a labelled image dataset in any usual layout.

    Args:
        data_dir: any of `SOURCES` (`settings.sources`): a folder of class folders, below `train/ validation/ test/`
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
    options = DataSourceArguments(
        data_dir=str(data_dir),
        manifest=str(manifest) if manifest else None,
        val_fraction=val_fraction,
        on_bad_image=on_bad_image,
        preprocessing_num_workers=num_workers,
        group_column=group_column,
        group_pattern=group_pattern,
        class_level=class_level,
        split_from=split_from,
        frames=frames,
        on_missing_class=on_missing_class,
    )
    return read_splits(options, seed, label_names=label_names)


def load_splits(
    options: DataSourceArguments,
    seed: int = 0,
    model_class_names: list[str] | None = None,
    label_names: list[str] | None = None,
    check: ImageCheckFn | None = None,
) -> DatasetDict:
    """Loads the splits, with `train` reduced to `train_fraction`, and `selection` held out from it
    (`selection_fraction`); for the arguments see `read_splits`."""
    return reduce_training(read_splits(options, seed, model_class_names, label_names, check=check), options, seed)


def read_splits(
    options: DataSourceArguments,
    seed: int = 0,
    model_class_names: list[str] | None = None,
    label_names: list[str] | None = None,
    allow_split_overlap: bool = False,
    check: ImageCheckFn | None = None,
) -> DatasetDict:
    """Reads the complete splits, with corrected labels.

    Args:
        options: the data.
        seed: seed of the held-out validation split.
        model_class_names: class names of a checkpoint, by id; their order is used if the data has the same classes.
        label_names: class names that define the class ids; the data may not have other classes.
        allow_split_overlap: accept images that are in two splits (for an audit, which lists them).
        check: function that finds the images that cannot be decoded, in place of decoding each of them only for that.
    """
    benchmark = find_benchmark(options.benchmark) if options.benchmark else None
    source = open_source(str(options.data_dir), _source_options(options))
    samples, assigned = source.samples, assign_samples(source)
    check_overlap = benchmark is None and not allow_split_overlap  # official splits are used as published
    mask = _find_valid_images(samples, assigned, options, check_overlap, check)
    if not any(mask):
        raise UsageError(DataMessage.NO_IMAGES_LEFT, root=source.uri, suffixes=IMAGE_SUFFIXES[:4])
    _record_unused(samples)
    found = sorted({label for label, is_valid in zip(assigned.labels, mask) if is_valid})
    found = list(dict.fromkeys([*(samples.class_names or ()), *found]))
    splits = _build_splits(samples, assigned, mask, order_classes(found, options, model_class_names, label_names))
    if options.on_missing_class == "error" and label_names is None and benchmark is None:
        _check_classes_span_splits(splits, source.uri)
    splits = _hold_out_validation(splits, options, benchmark, seed)
    _warn_about_splits(splits)
    if options.exclude_pairs:
        splits = _exclude_pairs(splits, options.exclude_pairs, benchmark.key if benchmark else "file_name")
    if benchmark:
        _log_benchmark(benchmark, options.fold, splits)
    return apply_label_corrections(splits, options.corrections) if options.corrections else splits


def _source_options(options: DataSourceArguments) -> SourceOptions:
    benchmark = options.benchmark and BenchmarkOptions(
        options.benchmark, options.fold, options.agreement, options.split_file, options.on_bad_image
    )
    return SourceOptions(
        manifest=options.manifest,
        benchmark=benchmark or None,
        split_from=options.split_from,
        class_level=options.class_level,
        group_column=options.group_column,
        group_pattern=options.group_pattern,
        frames=options.frames,
    )


def assign_samples(source: Source) -> Assignment:
    """Decides split, class and group of each image of a source; a file with several frames is their group."""
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
    assigned = assign(
        stated,
        split_from=options.split_from,
        class_level=options.class_level,
        group_column=options.group_column,
        group_pattern=options.group_pattern,
    )
    groups = assigned.groups or group_frames(list(stated.file_names))
    return dataclasses.replace(assigned, groups=groups)


def _find_valid_images(
    samples: Samples,
    assigned: Assignment,
    options: DataSourceArguments,
    check_overlap: bool,
    check: ImageCheckFn | None,
) -> list[bool]:
    """Selects the images that can be decoded, and that are in one split only."""
    return valid_image_mask(
        arrow_column(samples.data, "file_name").to_pylist(),
        assigned.splits,
        check_samples(samples.data, options.preprocessing_num_workers, assigned.splits, check),
        options.on_bad_image,
        empty_folders=samples.empty_folders,
        check_overlap=check_overlap,
    )


def _record_unused(samples: Samples) -> None:
    for reason, count in samples.unused.items():
        record_unused(reason, count)
    if samples.manifest:
        record_manifest(samples.manifest)


def _build_splits(samples: Samples, assigned: Assignment, mask: list[bool], names: list[str]) -> DatasetDict:
    """Builds one dataset per split that has images, with the columns of this package."""
    ids = {name: index for index, name in enumerate(names)}
    splits = DatasetDict()
    for split in SPLITS:
        rows = [row for row, is_valid in enumerate(mask) if is_valid and assigned.splits[row] == split]
        if not rows:
            continue
        part = select_rows(samples.data, rows)
        file_names = arrow_column(part, "file_name").to_pylist()
        labels = [ids[assigned.labels[row]] for row in rows]
        extra = part.select_columns(samples.extra_columns)
        part = part.select_columns(["image"]).add_column("labels", labels, feature=ClassLabel(names=names))
        part = part.add_column("file_name", file_names)
        if assigned.groups is not None:
            part = part.add_column("group", [assigned.groups[row] for row in rows])
        splits[split] = concatenate_datasets([part, extra], axis=1) if samples.extra_columns else part
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


def _hold_out_validation(
    splits: DatasetDict, options: DataSourceArguments, benchmark: Benchmark | None, seed: int
) -> DatasetDict:
    """Holds out `val_fraction`; for a benchmark without an official split, a fifth by default."""
    fraction = options.val_fraction
    if benchmark and not benchmark.has_split:
        fraction = fraction or DEFAULT_VAL_FRACTION
    if fraction:
        if "validation" in splits:
            raise UsageError(DataMessage.VALIDATION_SPLIT_EXISTS, val_fraction=f"{fraction:g}")
        hold_out(splits, "validation", fraction, seed)
    return DatasetDict({split: splits[split] for split in SPLITS if split in splits})


def _warn_about_splits(splits: DatasetDict) -> None:
    """Warns about classes without images, and about groups in two splits."""
    names = next(iter(splits.values())).features["labels"].names
    for split, dataset in splits.items():
        present = set(dataset["labels"][:])
        if missing := [name for index, name in enumerate(names) if index not in present]:
            warn(logger, DataMessage.CLASSES_WITHOUT_IMAGES, split=split, names=missing)
    warn_group_overlap({split: get_column(dataset, "group") or [] for split, dataset in splits.items()})


def _exclude_pairs(splits: DatasetDict, path: str, key: str) -> DatasetDict:
    filtered, num_excluded = DatasetDict(), 0
    for split, dataset in splits.items():
        names = dataset.features["labels"].names
        classes = [names[label] for label in dataset["labels"][:]]
        is_paired = find_paired_images(Path(path), dataset["file_name"][:], classes, key)
        rows = [row for row, is_excluded in enumerate(is_paired) if not is_excluded]
        num_excluded += len(dataset) - len(rows)
        if rows:
            filtered[split] = dataset.select(rows)
    if not num_excluded:
        raise UsageError(DataMessage.PAIRS_MATCH_NO_IMAGE, path=path)
    logger.info("%s excluded by %s.", pluralize(num_excluded, "image"), path)
    record_excluded(ExclusionReason.LISTED_IN_FILE, num_excluded, detail=Path(path).name)
    return filtered


def _log_benchmark(benchmark: Benchmark, fold: int, splits: DatasetDict) -> None:
    """Logs whether the numbers of images are as published."""
    counts = {split: len(dataset) for split, dataset in splits.items()}
    protocol = benchmark.match_protocol(fold, counts if benchmark.has_split else {"all": sum(counts.values())})
    expected = ", ".join(f"{split} {count}" for split, count in benchmark.split_counts(fold).items())
    inform(
        logger,
        DataMessage.BENCHMARK_LOADED,
        title=benchmark.title,
        counts=", ".join(f"{split} {count}" for split, count in counts.items()),
        published=f"as published: {protocol}" if protocol else f"published: {expected}",
        licence=benchmark.licence,
        citation=benchmark.citation,
    )


def reduce_training(splits: DatasetDict, options: DataSourceArguments, seed: int) -> DatasetDict:
    """Reduces `train` to `train_fraction` (nested subsets), and then holds out `selection` (`selection_fraction`)."""
    splits = DatasetDict(splits)
    if options.train_fraction < 1.0 and "train" in splits:
        labels = splits["train"]["labels"][:]
        mask = stratified_mask(labels, options.train_fraction, seed, leave_remainder=False)
        record_excluded(ExclusionReason.BEYOND_TRAIN_FRACTION, int((~mask).sum()), detail=options.train_fraction)
        splits["train"] = splits["train"].select(np.flatnonzero(mask))
    if options.selection_fraction:
        hold_out(splits, "selection", options.selection_fraction, seed)
    return splits


def read_centres(options: DataSourceArguments, column: str) -> dict[str, str]:
    """Reads the value of a column of the manifest (or table) of each image, by file name.

    Raises:
        UsageError: If the column, or a value in it, is missing.
    """
    by_centre = dataclasses.replace(_source_options(options), group_column=column, group_pattern=None)
    try:
        source = open_source(str(options.data_dir), by_centre)
        centres = assign_samples(source).groups
    except UsageError as error:
        if error.code is DataMessage.GROUP_COLUMN_WITHOUT_MANIFEST:
            raise UsageError(DataMessage.CENTRES_NEED_A_MANIFEST, column=column, root=options.data_dir) from None
        raise
    assert centres is not None, "a column was requested"
    check_class_names(set(centres), column)
    return dict(zip(arrow_column(source.samples.data, "file_name").to_pylist(), centres))


def load_official_folds(
    options: DataSourceArguments, seed: int, model_class_names: list[str] | None
) -> list[DatasetDict]:
    """Loads the official folds of a benchmark, or else the single split of the data."""
    count = find_benchmark(options.benchmark).folds if options.benchmark else 0
    if not count:
        splits = read_splits(options, seed, model_class_names)
        if not {"train", "validation"} <= splits.keys():
            raise UsageError(DataMessage.NO_OFFICIAL_FOLDS, data_dir=options.data_dir, splits=list(splits))
        return [splits]
    return [
        read_splits(dataclasses.replace(options, fold=fold), seed, model_class_names) for fold in range(1, count + 1)
    ]
