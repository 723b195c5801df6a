"""Class folders, manifests and Hub data sets -> `DatasetDict` with `image`, `labels` (ClassLabel) and `file_name`.

Nothing is copied: an image column holds paths. Everything that is wrong with the files is found here, before
training, and listed whole.
"""

import dataclasses
import logging
from pathlib import Path

from datasets import DatasetDict

from ..errors import UsageError, did_you_mean
from ..settings.data import ON_BAD_IMAGE_CHOICES, ON_MISSING_CLASS_CHOICES
from .archive_index import is_archive_source
from .folder_layout import scan_folder
from .hf_datasets import load_with_datasets
from .image_files import IMAGE_SUFFIXES
from .manifests import find_manifest, read_manifest
from .samples import ImageCheckFn, Sample, filter_valid_samples, get_column, join_names, samples_to_dataset
from .source_type import is_datasets_source
from .splits import SPLITS
from .splitting import extract_groups, hold_out, warn_group_overlap

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
    """Reads a labelled image data set of any usual layout.

    Args:
        data_dir: a folder of class folders, under `train/ val(idation)/ test/` or without splits (then all is `train`),
            nested as deep as you like (the class is the image's own folder, or the one above folders that are
            patients); a CSV, TSV or JSONL manifest with `file_name,label[,split]`; a folder that holds one; tar and zip
            archives, or a folder or URL of them (`shards`); or whatever `datasets.load_dataset` reads (a Hub id, a
            parquet folder).
        manifest: a manifest whose file names are relative to `data_dir`.
        val_fraction: share of the training images that is held out as `validation`, stratified by class and seeded.
        seed: of the held-out share.
        label_names: classes in the order of their ids (a checkpoint's own); not given: sorted names over all splits.
        on_bad_image: `error` stops at unreadable files, empty class folders and files that stand in two splits, and
            lists them all; `skip` leaves them out (a file in two splits leaves the training part) and logs them.
        num_workers: threads that read the files.
        group_column: manifest column with the patient or video, whose images are held out together; not given: `group`,
            where there is one.
        group_pattern: or a regular expression on `file_name`, whose first group it is.
        class_level: which folder is the class, from 1 below the splits, where the folders can be read in two ways.
        on_missing_class: `error` stops at a class that has images in one of several splits alone (a typo is one);
            `keep` takes it as it is. With `label_names` it is not asked.
        allow_split_overlap: let files stand in two splits (for an audit that lists them).
        check: finds the files that cannot be decoded, in place of reading each of them for that alone.

    Returns:
        Splits with `image` (decoded on access), `labels` (`ClassLabel`, the same for every split), `file_name`, and
        `group` where there are groups.

    Raises:
        UsageError: what is wrong, with every file that has it.
    """
    if on_bad_image not in ON_BAD_IMAGE_CHOICES:
        raise UsageError(f"on_bad_image takes error or skip, not {on_bad_image}.")
    if on_missing_class not in ON_MISSING_CLASS_CHOICES:
        raise UsageError(f"on_missing_class takes error or keep, not {on_missing_class}.")
    if not 0.0 <= val_fraction < 1.0:
        raise UsageError(f"val_fraction must be at least 0 and below 1, not {val_fraction}.")
    root = Path(data_dir)
    sharded = not manifest and is_archive_source(str(data_dir))
    manifest = Path(manifest) if manifest else None if sharded else find_manifest(root)
    nothing_here = not root.is_file() and not root.is_dir()
    if sharded or (manifest is None and (nothing_here or is_datasets_source(str(data_dir)))):
        loaded = load_with_datasets(
            str(data_dir), label_names, group_column, group_pattern, on_bad_image, num_workers, not allow_split_overlap
        )
    else:
        entries, empty = _read_samples(root, manifest, group_column, class_level)
        entries = _assign_groups(entries, root, group_column, group_pattern)
        entries = filter_valid_samples(
            entries, empty, on_bad_image, num_workers, check_overlap=not allow_split_overlap, check=check
        )
        loaded = _build_splits(entries, label_names, root)
    if on_missing_class == "error" and label_names is None:
        _check_classes_span_splits(loaded, root)
    return _finalize_splits(loaded, val_fraction, seed)


def _read_samples(
    root: Path, manifest: Path | None, group_column: str | None, class_level: int | None
) -> tuple[list[Sample], list[str]]:
    """The entries of a manifest or of class folders, and the class folders without images."""
    if manifest is not None:
        if class_level is not None:
            raise UsageError("--class_level is for folders of classes; a manifest says the class itself.")
        return read_manifest(manifest, root if root.is_dir() else manifest.parent, group_column), []
    if root.is_file():
        raise UsageError(f"{root} is no folder and no CSV, TSV or JSONL manifest.")
    return scan_folder(root, class_level)


def _assign_groups(
    samples: list[Sample], root: Path, group_column: str | None, group_pattern: str | None
) -> list[Sample]:
    """The entries with the patient or video that a column or a pattern tells."""
    if group_column and not (samples and samples[0].group):
        raise UsageError(f"--group_column {group_column} is a column of a manifest, and {root} has none.")
    if not group_pattern:
        return samples
    groups = extract_groups([entry.file_name for entry in samples], group_pattern)
    return [dataclasses.replace(entry, group=group) for entry, group in zip(samples, groups)]


def _build_splits(samples: list[Sample], label_names: list[str] | None, root: Path) -> DatasetDict:
    """A data set for each split that has images, all with the same classes."""
    if not samples:
        raise UsageError(
            f"{root} has no images left to train on ({', '.join(IMAGE_SUFFIXES[:4])}... in class folders)."
        )
    names = label_names or sorted({entry.label for entry in samples})
    if unknown := sorted({entry.label for entry in samples} - set(names)):
        raise UsageError(
            f"{root} has classes that the checkpoint does not know: {', '.join(unknown)}. It knows {', '.join(names)}."
        )
    parts = {split: [entry for entry in samples if entry.split == split] for split in SPLITS}
    return DatasetDict({split: samples_to_dataset(found, names) for split, found in parts.items() if found})


def _check_classes_span_splits(splits: DatasetDict, root: Path) -> None:
    """A class with images in one split alone is a typo, or can be trained on or judged, but not both."""
    if len(splits) < 2:
        return
    names = next(iter(splits.values())).features["labels"].names
    there = {split: {names[index] for index in set(dataset["labels"][:])} for split, dataset in splits.items()}
    alone = {name: holding for name in names if len(holding := [s for s in there if name in there[s]]) == 1}
    if alone:
        told = [
            f"{name} in {holding[0]} alone{did_you_mean(name, [other for other in names if other not in alone])}"
            for name, holding in alone.items()
        ]
        raise UsageError(
            f"{root} has classes in one split only: {join_names(told)}. Correct the name, or pass --on_missing_class keep "
            "where this is meant."
        )


def _finalize_splits(splits: DatasetDict, val_fraction: float, seed: int) -> DatasetDict:
    """Holds a validation part out, and warns of what the splits lack or share."""
    if val_fraction:
        if "validation" in splits:
            raise UsageError(f"There is a validation split already: leave out --val_fraction {val_fraction:g}.")
        hold_out(splits, "validation", val_fraction, seed)
    splits = DatasetDict({split: splits[split] for split in SPLITS if split in splits})
    names = next(iter(splits.values())).features["labels"].names
    for split, dataset in splits.items():
        present = set(dataset["labels"][:])
        if missing := [name for index, name in enumerate(names) if index not in present]:
            logger.warning(
                "The %s split has no image of: %s. Class ids are not changed by that.", split, ", ".join(missing)
            )
    warn_group_overlap({split: get_column(dataset, "group") or [] for split, dataset in splits.items()})
    return splits
