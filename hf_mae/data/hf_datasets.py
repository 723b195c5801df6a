"""Hub data sets, parquet folders and saved data sets -> the columns that this package works with."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value

from ..compat.datasets import get_fingerprint
from ..errors import UsageError, first_error_line, pluralize
from ..files.archive_members import TABLE_SUFFIX
from .archive_index import DIGEST_COLUMN, load_archives
from .arrow_offsets import locate_embedded_images
from .image_check import ImageCheck, check_table_images
from .samples import arrow_column, valid_image_mask
from .source_type import ARCHIVE, PARQUET, SAVED_DATASET, detect_source_type
from .splits import SPLIT_NAMES, SPLITS, parse_split_name
from .splitting import extract_groups
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
    """Splits with `image`, `labels`, `file_name`, and `group` where there are groups.

    Args:
        source: whatever `datasets` loads: a Hub id, a parquet folder, a folder of `save_to_disk`.
        check_overlap: refuse images that stand in two splits.
        label_names, group_column, group_pattern, on_bad_image, num_workers: as of `load_image_folder`.

    Raises:
        UsageError: it cannot be loaded, its columns, splits or labels are not understood, or images are unreadable.
    """
    archives = detect_source_type(source) == ARCHIVE
    loaded = _normalize_split_names(
        _check_has_labels(load_archives(source), source) if archives else _load_source(source), source
    )
    columns = _find_columns(loaded, source, group_column)
    labels = {
        split: _read_label_names(dataset, columns.label, f"{source}, {split}") for split, dataset in loaded.items()
    }
    found = _ordered_class_names(loaded, columns.label) or sorted({text for texts in labels.values() for text in texts})
    names = label_names or found
    if unknown := [name for name in found if name not in names]:
        raise UsageError(f"{source} has classes that the checkpoint does not know: {', '.join(unknown)}.")
    tidy = {
        split: _build_standard_columns(
            loaded[split], split, columns, [names.index(text) for text in labels[split]], names, group_pattern
        )
        for split in SPLITS
        if split in loaded
    }
    return _filter_valid_images(tidy, on_bad_image, num_workers, check_overlap)


@dataclass(frozen=True)
class _Columns:
    """Which columns of a data set hold what."""

    image: str
    label: str
    group: str | None
    file_name: str | None  # else the images' own paths are their names


def load_images(source: str) -> DatasetDict:
    """Images of archives or of what `datasets` loads, whether they have classes or not.

    Returns:
        Splits, as they are called there, with `image`, `file_name` (which tells each image), and `digest` where it is
        known.

    Raises:
        UsageError: as of `load_with_datasets`.
    """
    if detect_source_type(source) == ARCHIVE:  # millions, perhaps, whose names are their own
        shards = load_archives(source)
        found = {
            split: part.select_columns(
                [name for name in ("image", "file_name", DIGEST_COLUMN) if name in part.column_names]
            )
            for split, part in shards.items()
        }
        return DatasetDict(found)
    found = DatasetDict()
    for split, dataset in _load_source(source).items():
        columns = dataset.column_names
        images = [name for name, feature in dataset.features.items() if isinstance(feature, Image)]
        if len(images) != 1:
            raise UsageError(f"{source} needs one image column; it has {images or 'none'} among {', '.join(columns)}.")
        found[split] = _select_images(dataset, images[0], split)
    names = [name for dataset in found.values() for name in arrow_column(dataset, "file_name").to_pylist()]
    if len(set(names)) == len(names):
        return found
    return DatasetDict({split: _number_file_names(dataset, split) for split, dataset in found.items()})


def _select_images(dataset: Dataset, image_column: str, split: str) -> Dataset:
    """`image_column` and `file_name`; images are where they lie, rather than in the table, if that can be told."""
    named = "file_name" in dataset.column_names and arrow_column(dataset, "file_name").null_count == 0
    images = arrow_column(dataset, image_column)
    names = [str(name) for name in dataset["file_name"][:]] if named else _stored_names(images, split)
    names = [name.lstrip("/") for name in names]  # `datasets` keeps whole paths
    if (places := locate_embedded_images(dataset, image_column)) is not None:
        features = Features({"image": Image(), "file_name": Value("string")})
        return Dataset.from_dict({"image": places, "file_name": names}, features=features)
    return dataset.select_columns([image_column]).rename_columns({image_column: "image"}).add_column("file_name", names)


def _number_file_names(dataset: Dataset, split: str) -> Dataset:
    """Names that are not an image's alone get its place before them."""
    names = [f"{split}/{place}/{name}" for place, name in enumerate(arrow_column(dataset, "file_name").to_pylist())]
    return dataset.remove_columns("file_name").add_column("file_name", names)


def _stored_names(images: pa.ChunkedArray, split: str) -> list[str]:
    """The paths that images were saved with, or their places."""
    paths = pc.struct_field(images, "path").to_pylist()
    return [str(path or f"{split}/{place}") for place, path in enumerate(paths)]


def _load_source(source: str) -> DatasetDict:
    """The splits that `datasets` loads, with their columns as they are."""
    from datasets import load_dataset, load_from_disk

    kind = detect_source_type(source)
    try:
        if kind == SAVED_DATASET:
            loaded = load_from_disk(source)
        elif kind == PARQUET:
            loaded = load_dataset("parquet", data_files=_data_files_by_split(source))
        else:
            loaded = load_dataset(source)
    except Exception as error:  # datasets and huggingface_hub raise many kinds; one sentence serves them all
        raise UsageError(
            f"{source} is no folder here, and datasets cannot load it ({first_error_line(error)})."
        ) from None
    splits = DatasetDict({"train": loaded}) if isinstance(loaded, Dataset) else loaded
    return DatasetDict({split: _cast_image_column(dataset) for split, dataset in splits.items()})


def _data_files_by_split(source: str) -> str | dict[str, list[str]]:
    """A file, or those of a folder behind a URL by the split that their names tell, as `datasets` has it."""
    from datasets.data_files import get_data_patterns

    if "*" in source or source.lower().endswith(TABLE_SUFFIX):
        return source
    patterns = get_data_patterns(source.rstrip("/"))
    return {split: [f"{source.rstrip('/')}/{pattern}" for pattern in found] for split, found in patterns.items()}


def _cast_image_column(dataset: Dataset) -> Dataset:
    """A column of bytes, or of `{"bytes", "path"}`, that no tool called images, is one where there is no other."""
    if any(isinstance(feature, Image) for feature in dataset.features.values()):
        return dataset
    encoded = [name for name, feature in dataset.features.items() if _is_encoded_image(feature)]
    return dataset.cast_column(encoded[0], Image()) if len(encoded) == 1 else dataset


def _is_encoded_image(feature: Any) -> bool:
    bytes_of_any = (Value("binary"), Value("large_binary"))
    return feature in bytes_of_any or isinstance(feature, dict) and feature.get("bytes") in bytes_of_any


def _check_has_labels(loaded: DatasetDict, source: str) -> DatasetDict:
    if lacking := [split for split, dataset in loaded.items() if "label" not in dataset.column_names]:
        raise UsageError(
            f"{source} has images without a class ({', '.join(lacking)}): put them into a folder for each class, or a "
            ".cls or .json file beside each (WebDataset's layout), and pack them again."
        )
    return loaded


def _normalize_split_names(loaded: DatasetDict, source: str) -> DatasetDict:
    if unnamed := [split for split in loaded if parse_split_name(split) is None]:
        raise UsageError(
            f"{source} has splits of unknown names ({', '.join(unnamed)}); known are {', '.join(SPLIT_NAMES)}."
        )
    named = [parse_split_name(split) for split in loaded]
    if twice := sorted({str(split) for split in named if named.count(split) > 1}):
        raise UsageError(f"{source} has several splits that are {', '.join(twice)} ({', '.join(loaded)}): leave one.")
    return DatasetDict({str(parse_split_name(split)): dataset for split, dataset in loaded.items()})


def _find_columns(loaded: DatasetDict, source: str, group_column: str | None) -> _Columns:
    features = next(iter(loaded.values())).features
    for split, dataset in loaded.items():
        if set(dataset.features) != set(features):
            raise UsageError(
                f"{source} has other columns in {split} ({', '.join(dataset.features)}) than {', '.join(features)}."
            )
    images = [name for name, feature in features.items() if isinstance(feature, Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, ClassLabel)]
    labels = labels or [name for name in LABEL_COLUMNS if name in features]
    if len(images) != 1 or len(labels) != 1:
        raise UsageError(
            f"{source} needs one image column and one label column; it has {images or 'no'} and {labels or 'no'} "
            f"among {', '.join(features)}."
        )
    if group_column and group_column not in features:
        raise UsageError(f"{source} has no column {group_column}; it has {', '.join(features)}.")
    group = group_column or ("group" if "group" in features else None)
    named = all("file_name" in dataset.features and None not in dataset["file_name"][:] for dataset in loaded.values())
    named = named and features["file_name"] == Value("string")
    return _Columns(images[0], labels[0], group, "file_name" if named else None)


def _ordered_class_names(loaded: DatasetDict, label_column: str) -> list[str] | None:
    """The classes in the order of the first split that numbers them; others follow. None: the labels are no numbers."""
    names: dict[str, None] = {}
    for dataset in loaded.values():
        if isinstance(feature := dataset.features[label_column], ClassLabel):
            names |= dict.fromkeys(feature.names)
    return list(names) or None


def _read_label_names(dataset: Dataset, label_column: str, location: str) -> list[str]:
    """The class name of every row, by the split's own numbering.

    Raises:
        UsageError: a row has no label.
    """
    feature, values = dataset.features[label_column], arrow_column(dataset, label_column).to_pylist()
    if isinstance(feature, ClassLabel):
        odd = [place for place, value in enumerate(values) if value is None or not 0 <= value < len(feature.names)]
        if odd:
            raise UsageError(
                f"{location} has {pluralize(len(odd), 'image')} without a label (row {odd[0]} has {values[odd[0]]}): take "
                "them out, with `dataset.filter`, say."
            )
        return [feature.names[value] for value in values]
    return [parse_label(value, f"{location}, row {place},") for place, value in enumerate(values)]


def _build_standard_columns(
    dataset: Dataset,
    split: str,
    columns: _Columns,
    label_ids: list[int],
    class_names: list[str],
    group_pattern: str | None,
) -> Dataset:
    """One split with the columns of this package."""
    images = arrow_column(dataset, columns.image)
    if empty := pc.indices_nonzero(pc.is_null(images)).to_pylist():
        raise UsageError(
            f"The {split} split has {pluralize(len(empty), 'row')} without an image, row {empty[0]} among them."
        )
    if columns.file_name:
        files = arrow_column(dataset, columns.file_name).to_pylist()
    else:
        files = _stored_names(images, split)
    tidy = dataset.select_columns([columns.image, *({DIGEST_COLUMN} & set(dataset.column_names))])
    tidy = tidy if columns.image == "image" else tidy.rename_column(columns.image, "image")
    tidy = tidy.add_column("labels", np.asarray(label_ids)).add_column("file_name", files)
    if group_pattern:
        tidy = tidy.add_column("group", extract_groups(files, group_pattern))
    elif columns.group:
        values = dataset[columns.group][:]
        groups = [parse_label(value, f"{split}, row {place}, {columns.group},") for place, value in enumerate(values)]
        tidy = tidy.add_column("group", groups)
    return tidy.cast_column("labels", ClassLabel(names=class_names))


def _filter_valid_images(
    splits: dict[str, Dataset], on_bad_image: str, num_workers: int | None, check_overlap: bool
) -> DatasetDict:
    """The splits without images that cannot be decoded or stand in two of them; or a sentence that lists them."""
    names: list[str] = []
    of_split: list[str] = []
    bad: dict[int, str] = {}
    digests: list[str] = []
    for split, dataset in splits.items():
        if DIGEST_COLUMN in dataset.column_names:  # whoever packed them has looked at every one
            verdict = ImageCheck({}, arrow_column(dataset, DIGEST_COLUMN).to_pylist())
        else:
            rows = dataset.select_columns(["image"]).cast_column("image", Image(decode=False))["image"]
            verdict = check_table_images(rows, get_fingerprint(dataset), num_workers)
        bad |= {len(names) + place: reason for place, reason in verdict.bad.items()}
        names += dataset["file_name"][:]
        of_split += [split] * len(dataset)
        digests += verdict.digests
    keep = valid_image_mask(names, of_split, ImageCheck(bad, digests), on_bad_image, check_overlap=check_overlap)
    splits = {
        split: part.remove_columns(DIGEST_COLUMN) if DIGEST_COLUMN in part.column_names else part
        for split, part in splits.items()
    }
    if all(keep):
        return DatasetDict(splits)
    kept = DatasetDict()
    for split, dataset in splits.items():
        places = [place for place, here in enumerate(part for part, s in zip(keep, of_split) if s == split) if here]
        if places:
            kept[split] = dataset.select(places)
    return kept
