"""Loads Hub datasets, parquet folders and saved datasets with the columns of this package."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value

from ...compat.datasets import get_fingerprint
from ...errors import UsageError, first_error_line
from ...files.archive_members import TABLE_SUFFIX
from ..checks.image_check import ImageCheck, check_table_images
from ..messages import DataMessage
from ..splits import SPLIT_NAMES, SPLITS, parse_split_name
from ..splitting import extract_groups
from .archive_index import DIGEST_COLUMN, load_archives
from .arrow_offsets import locate_embedded_images
from .samples import arrow_column, valid_image_mask
from .source_type import ARCHIVE, PARQUET, SAVED_DATASET, detect_source_type
from .tables import parse_label

LABEL_COLUMNS = ("labels", "label", "class", "category", "cls")  # the last is WebDataset's


def load_with_datasets(
    source: str,
    label_names: list[str] | None = None,
    group_column: str | None = None,
    group_pattern: str | None = None,
    on_bad_image: str = "error",
    num_workers: int | None = None,
    check_overlap: bool = True,
) -> DatasetDict:
    """Loads splits with `image`, `labels`, `file_name`, and `group` if there are groups.

    Args:
        source: anything that `datasets` loads: a Hub id, a parquet folder, a folder written by `save_to_disk`.
        check_overlap: reject images that are in two splits.
        label_names, group_column, group_pattern, on_bad_image, num_workers: see `load_image_folder`.

    Raises:
        UsageError: If it cannot be loaded, if its columns, splits or labels are invalid, or if images are unreadable.
    """
    is_archive = detect_source_type(source) == ARCHIVE
    loaded = _normalize_split_names(
        _check_has_labels(load_archives(source), source) if is_archive else _load_source(source), source
    )
    columns = _find_columns(loaded, source, group_column)
    labels = {
        split: _read_label_names(dataset, columns.label, f"{source}, {split}") for split, dataset in loaded.items()
    }
    existing = _ordered_class_names(loaded, columns.label) or sorted(
        {name for part in labels.values() for name in part}
    )
    names = label_names or existing
    if unknown := [name for name in existing if name not in names]:
        raise UsageError(DataMessage.CLASSES_NOT_IN_CHECKPOINT, source=source, unknown=unknown, known=names)
    splits = {
        split: _build_standard_columns(
            loaded[split], split, columns, [names.index(name) for name in labels[split]], names, group_pattern
        )
        for split in SPLITS
        if split in loaded
    }
    return _filter_valid_images(splits, on_bad_image, num_workers, check_overlap)


@dataclass(frozen=True)
class _Columns:
    """Names of the columns of a dataset, by content."""

    image: str
    label: str
    group: str | None
    file_name: str | None  # if None, the paths of the images are used


def load_images(source: str) -> DatasetDict:
    """Loads the images of archives or of a dataset, with or without classes.

    Returns:
        Splits (with their original names) with `image`, `file_name` (unique), and `digest` if it is known.

    Raises:
        UsageError: See `load_with_datasets`.
    """
    if detect_source_type(source) == ARCHIVE:  # perhaps millions; their names are unique already
        names = ("image", "file_name", DIGEST_COLUMN)
        return DatasetDict(
            {
                split: part.select_columns([name for name in names if name in part.column_names])
                for split, part in load_archives(source).items()
            }
        )
    splits = DatasetDict()
    for split, dataset in _load_source(source).items():
        images = [name for name, feature in dataset.features.items() if isinstance(feature, Image)]
        if len(images) != 1:
            raise UsageError(
                DataMessage.IMAGE_COLUMN_NOT_UNIQUE,
                source=source,
                images=images or "none",
                columns=dataset.column_names,
            )
        splits[split] = _select_images(dataset, images[0], split)
    file_names = [name for dataset in splits.values() for name in arrow_column(dataset, "file_name").to_pylist()]
    if len(set(file_names)) == len(file_names):
        return splits
    return DatasetDict({split: _number_file_names(dataset, split) for split, dataset in splits.items()})


def _select_images(dataset: Dataset, image_column: str, split: str) -> Dataset:
    """Selects the columns `image` and `file_name`; if possible, images are paths into the Arrow files."""
    has_names = "file_name" in dataset.column_names and arrow_column(dataset, "file_name").null_count == 0
    images = arrow_column(dataset, image_column)
    names = [str(name) for name in dataset["file_name"][:]] if has_names else _stored_names(images, split)
    names = [name.lstrip("/") for name in names]  # `datasets` keeps absolute paths
    if (paths := locate_embedded_images(dataset, image_column)) is not None:
        features = Features({"image": Image(), "file_name": Value("string")})
        return Dataset.from_dict({"image": paths, "file_name": names}, features=features)
    return dataset.select_columns([image_column]).rename_columns({image_column: "image"}).add_column("file_name", names)


def _number_file_names(dataset: Dataset, split: str) -> Dataset:
    """Makes file names unique: split and row number are prepended."""
    names = [f"{split}/{row}/{name}" for row, name in enumerate(arrow_column(dataset, "file_name").to_pylist())]
    return dataset.remove_columns("file_name").add_column("file_name", names)


def _stored_names(images: pa.ChunkedArray, split: str) -> list[str]:
    """Returns the paths with which images were saved, or else split and row number."""
    paths = pc.struct_field(images, "path").to_pylist()
    return [str(path or f"{split}/{row}") for row, path in enumerate(paths)]


def _load_source(source: str) -> DatasetDict:
    """Loads the splits that `datasets` loads, with their original columns."""
    from datasets import load_dataset, load_from_disk

    source_type = detect_source_type(source)
    try:
        if source_type == SAVED_DATASET:
            loaded = load_from_disk(source)
        elif source_type == PARQUET:
            loaded = load_dataset("parquet", data_files=_data_files_by_split(source))
        else:
            loaded = load_dataset(source)
    except Exception as error:  # datasets and huggingface_hub raise many exception classes
        raise UsageError(DataMessage.DATASET_NOT_LOADED, source=source, reason=first_error_line(error)) from None
    splits = DatasetDict({"train": loaded}) if isinstance(loaded, Dataset) else loaded
    return DatasetDict({split: _cast_image_column(dataset) for split, dataset in splits.items()})


def _data_files_by_split(source: str) -> str | dict[str, list[str]]:
    """Returns a parquet file or glob, or the files of a remote folder by the split in their names, as `datasets` infers
    it."""
    from datasets.data_files import get_data_patterns

    if "*" in source or source.lower().endswith(TABLE_SUFFIX):
        return source
    patterns = get_data_patterns(source.rstrip("/"))
    return {
        split: [f"{source.rstrip('/')}/{pattern}" for pattern in split_patterns]
        for split, split_patterns in patterns.items()
    }


def _cast_image_column(dataset: Dataset) -> Dataset:
    """Casts a single column of bytes, or of `{"bytes", "path"}`, to `Image`, unless there is an image column."""
    if any(isinstance(feature, Image) for feature in dataset.features.values()):
        return dataset
    encoded = [name for name, feature in dataset.features.items() if _is_encoded_image(feature)]
    return dataset.cast_column(encoded[0], Image()) if len(encoded) == 1 else dataset


def _is_encoded_image(feature: Any) -> bool:
    binary_types = (Value("binary"), Value("large_binary"))
    return feature in binary_types or isinstance(feature, dict) and feature.get("bytes") in binary_types


def _check_has_labels(loaded: DatasetDict, source: str) -> DatasetDict:
    if unlabelled := [split for split, dataset in loaded.items() if "label" not in dataset.column_names]:
        raise UsageError(DataMessage.ARCHIVE_WITHOUT_LABELS, source=source, splits=unlabelled)
    return loaded


def _normalize_split_names(loaded: DatasetDict, source: str) -> DatasetDict:
    if unknown := [split for split in loaded if parse_split_name(split) is None]:
        raise UsageError(DataMessage.UNKNOWN_SPLIT_NAMES, source=source, unknown=unknown, known=SPLIT_NAMES)
    names = [parse_split_name(split) for split in loaded]
    if repeated := sorted({str(split) for split in names if names.count(split) > 1}):
        raise UsageError(DataMessage.SEVERAL_SPLITS_WITH_ONE_NAME, source=source, names=repeated, splits=list(loaded))
    return DatasetDict({str(parse_split_name(split)): dataset for split, dataset in loaded.items()})


def _find_columns(loaded: DatasetDict, source: str, group_column: str | None) -> _Columns:
    features = next(iter(loaded.values())).features
    for split, dataset in loaded.items():
        if set(dataset.features) != set(features):
            raise UsageError(
                DataMessage.SPLIT_COLUMNS_DIFFER,
                source=source,
                split=split,
                columns=list(dataset.features),
                expected=list(features),
            )
    images = [name for name, feature in features.items() if isinstance(feature, Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, ClassLabel)]
    labels = labels or [name for name in LABEL_COLUMNS if name in features]
    if len(images) != 1 or len(labels) != 1:
        raise UsageError(
            DataMessage.IMAGE_OR_LABEL_COLUMN_NOT_UNIQUE,
            source=source,
            images=images or "none",
            labels=labels or "none",
            columns=list(features),
        )
    if group_column and group_column not in features:
        raise UsageError(DataMessage.COLUMNS_MISSING, path=source, columns=[group_column], existing=list(features))
    group = group_column or ("group" if "group" in features else None)
    has_names = all(
        "file_name" in dataset.features and None not in dataset["file_name"][:] for dataset in loaded.values()
    )
    has_names = has_names and features["file_name"] == Value("string")
    return _Columns(images[0], labels[0], group, "file_name" if has_names else None)


def _ordered_class_names(loaded: DatasetDict, label_column: str) -> list[str] | None:
    """Returns the classes in the order of the first split with class ids, then those of other splits; None without."""
    names: dict[str, None] = {}
    for dataset in loaded.values():
        if isinstance(feature := dataset.features[label_column], ClassLabel):
            names |= dict.fromkeys(feature.names)
    return list(names) or None


def _read_label_names(dataset: Dataset, label_column: str, location: str) -> list[str]:
    """Reads the class name of each row; each split may have class ids of its own.

    Raises:
        UsageError: If a row has no label.
    """
    feature, values = dataset.features[label_column], arrow_column(dataset, label_column).to_pylist()
    if isinstance(feature, ClassLabel):
        invalid = [row for row, value in enumerate(values) if value is None or not 0 <= value < len(feature.names)]
        if invalid:
            row = invalid[0]
            raise UsageError(
                DataMessage.ROWS_WITHOUT_LABEL, location=location, count=len(invalid), row=row, value=values[row]
            )
        return [feature.names[value] for value in values]
    return [parse_label(value, f"{location}, row {row}, {label_column}") for row, value in enumerate(values)]


def _build_standard_columns(
    dataset: Dataset,
    split: str,
    columns: _Columns,
    label_ids: list[int],
    class_names: list[str],
    group_pattern: str | None,
) -> Dataset:
    """Builds a split with the columns of this package."""
    images = arrow_column(dataset, columns.image)
    if empty := pc.indices_nonzero(pc.is_null(images)).to_pylist():
        raise UsageError(DataMessage.ROWS_WITHOUT_IMAGE, split=split, count=len(empty), row=empty[0])
    if columns.file_name:
        file_names = arrow_column(dataset, columns.file_name).to_pylist()
    else:
        file_names = _stored_names(images, split)
    standard = dataset.select_columns([columns.image, *({DIGEST_COLUMN} & set(dataset.column_names))])
    standard = standard if columns.image == "image" else standard.rename_column(columns.image, "image")
    standard = standard.add_column("labels", np.asarray(label_ids)).add_column("file_name", file_names)
    if group_pattern:
        standard = standard.add_column("group", extract_groups(file_names, group_pattern))
    elif columns.group:
        values = dataset[columns.group][:]
        groups = [parse_label(value, f"{split}, row {row}, {columns.group}") for row, value in enumerate(values)]
        standard = standard.add_column("group", groups)
    return standard.cast_column("labels", ClassLabel(names=class_names))


def _filter_valid_images(
    splits: dict[str, Dataset], on_bad_image: str, num_workers: int | None, check_overlap: bool
) -> DatasetDict:
    """Removes the images that cannot be decoded or are in two splits.

    Raises:
        UsageError: If there are such images and `on_bad_image` is `error`; all are listed.
    """
    file_names: list[str] = []
    split_names: list[str] = []
    bad: dict[int, str] = {}
    digests: list[str] = []
    for split, dataset in splits.items():
        if DIGEST_COLUMN in dataset.column_names:  # hf-mae shard checked the images
            check = ImageCheck({}, arrow_column(dataset, DIGEST_COLUMN).to_pylist())
        else:
            rows = dataset.select_columns(["image"]).cast_column("image", Image(decode=False))["image"]
            check = check_table_images(rows, get_fingerprint(dataset), num_workers)
        bad |= {len(file_names) + row: reason for row, reason in check.bad.items()}
        file_names += dataset["file_name"][:]
        split_names += [split] * len(dataset)
        digests += check.digests
    mask = valid_image_mask(
        file_names, split_names, ImageCheck(bad, digests), on_bad_image, check_overlap=check_overlap
    )
    splits = {
        split: part.remove_columns(DIGEST_COLUMN) if DIGEST_COLUMN in part.column_names else part
        for split, part in splits.items()
    }
    if all(mask):
        return DatasetDict(splits)
    valid = DatasetDict()
    for split, dataset in splits.items():
        split_mask = (is_valid for is_valid, name in zip(mask, split_names) if name == split)
        rows = [row for row, is_valid in enumerate(split_mask) if is_valid]
        if rows:
            valid[split] = dataset.select(rows)
    return valid
