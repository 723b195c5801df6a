"""Loads class folders, manifests and Hub datasets as a `DatasetDict` with `image`, `labels` and `file_name`.

Nothing is copied: the image column contains paths. All invalid files are found and listed here, before training.
"""

import dataclasses
import logging
from pathlib import Path

from datasets import DatasetDict

from ...errors import UsageError, did_you_mean, warn
from ...settings.data import ON_BAD_IMAGE_CHOICES, ON_MISSING_CLASS_CHOICES
from ..messages import DataMessage
from ..splits import SPLITS
from ..splitting import extract_groups, hold_out, warn_group_overlap
from .archive_index import is_archive_source
from .folder_layout import scan_folder
from .hf_datasets import load_with_datasets
from .image_files import IMAGE_SUFFIXES
from .manifests import find_manifest, read_manifest
from .samples import ImageCheckFn, Sample, filter_valid_samples, get_column, join_names, samples_to_dataset
from .source_type import is_datasets_source

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
    on_missing_class: str = "error",
    allow_split_overlap: bool = False,
    check: ImageCheckFn | None = None,
) -> DatasetDict:
    """Loads a labelled image dataset in any usual layout.

    Args:
        data_dir: a folder of class folders, below `train/ val(idation)/ test/` or without splits (then all images are
            `train`), at any depth (the class is the image's own folder, or its parent if the folders are patients); a
            CSV, TSV or JSONL manifest with `file_name,label[,split]`; a folder with such a manifest; tar and zip
            archives, or a folder or URL of them; or anything that `datasets.load_dataset` loads (a Hub id, a parquet
            folder).
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
    root = Path(data_dir)
    is_archive = not manifest and is_archive_source(str(data_dir))
    manifest = Path(manifest) if manifest else None if is_archive else find_manifest(root)
    is_local = root.is_file() or root.is_dir()
    if is_archive or (manifest is None and (not is_local or is_datasets_source(str(data_dir)))):
        splits = load_with_datasets(
            str(data_dir), label_names, group_column, group_pattern, on_bad_image, num_workers, not allow_split_overlap
        )
    else:
        samples, empty_folders = _read_samples(root, manifest, group_column, class_level)
        samples = _assign_groups(samples, root, group_column, group_pattern)
        samples = filter_valid_samples(
            samples, empty_folders, on_bad_image, num_workers, check_overlap=not allow_split_overlap, check=check
        )
        splits = _build_splits(samples, label_names, root)
    if on_missing_class == "error" and label_names is None:
        _check_classes_span_splits(splits, root)
    return _finalize_splits(splits, val_fraction, seed)


def _read_samples(
    root: Path, manifest: Path | None, group_column: str | None, class_level: int | None
) -> tuple[list[Sample], list[str]]:
    """Reads the samples of a manifest or of class folders, and the class folders without images."""
    if manifest is not None:
        if class_level is not None:
            raise UsageError(DataMessage.CLASS_LEVEL_WITH_MANIFEST)
        return read_manifest(manifest, root if root.is_dir() else manifest.parent, group_column), []
    if root.is_file():
        raise UsageError(DataMessage.NOT_A_DIRECTORY_OR_MANIFEST, path=root)
    return scan_folder(root, class_level)


def _assign_groups(
    samples: list[Sample], root: Path, group_column: str | None, group_pattern: str | None
) -> list[Sample]:
    """Returns the samples with the groups of a pattern, or unchanged."""
    if group_column and not (samples and samples[0].group):
        raise UsageError(DataMessage.GROUP_COLUMN_WITHOUT_MANIFEST, column=group_column, root=root)
    if not group_pattern:
        return samples
    groups = extract_groups([sample.file_name for sample in samples], group_pattern)
    return [dataclasses.replace(sample, group=group) for sample, group in zip(samples, groups)]


def _build_splits(samples: list[Sample], label_names: list[str] | None, root: Path) -> DatasetDict:
    """Builds one dataset per split that has images, all with the same classes."""
    if not samples:
        raise UsageError(DataMessage.NO_IMAGES_LEFT, root=root, suffixes=IMAGE_SUFFIXES[:4])
    names = label_names or sorted({sample.label for sample in samples})
    if unknown := sorted({sample.label for sample in samples} - set(names)):
        raise UsageError(DataMessage.CLASSES_NOT_IN_CHECKPOINT, source=root, unknown=unknown, known=names)
    by_split = {split: [sample for sample in samples if sample.split == split] for split in SPLITS}
    return DatasetDict({split: samples_to_dataset(part, names) for split, part in by_split.items() if part})


def _check_classes_span_splits(splits: DatasetDict, root: Path) -> None:
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
