"""Hub data sets, parquet folders and saved data sets -> the columns that this package works with."""

from dataclasses import dataclass
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Image

from ..errors import UsageError, first_line
from .shares import groups_of
from .splits import SPLIT_NAMES, SPLITS

LABEL_COLUMNS = ("labels", "label", "class", "category")


def load_with_datasets(
    source: str,
    label_names: list[str] | None = None,
    group_column: str | None = None,
    group_pattern: str | None = None,
) -> DatasetDict:
    """Splits with `image`, `labels`, `file_name`, and `group` where there are groups.

    Args:
        source: whatever `datasets` loads: a Hub id, a parquet folder, a folder of `save_to_disk`.
        label_names, group_column, group_pattern: as of `load_image_folder`.

    Raises:
        UsageError: it cannot be loaded, or its columns or splits are not understood.
    """
    loaded = _named_splits(_load(source), source)
    columns = _columns(loaded, source, group_column)
    names = label_names or columns.names
    if unknown := [name for name in columns.names if name not in names]:
        raise UsageError(f"{source} has classes that the checkpoint does not know: {', '.join(unknown)}.")
    return DatasetDict(
        {split: _tidy(loaded[split], split, columns, names, group_pattern) for split in SPLITS if split in loaded}
    )


@dataclass(frozen=True)
class _Columns:
    """Which columns of a data set hold what."""

    image: str
    label: str
    group: str | None
    names: list[str]  # of the classes, by class id
    by_id: bool  # whether labels are class ids, rather than names


def _load(source: str) -> DatasetDict:
    from datasets import load_dataset, load_from_disk

    try:
        if (Path(source) / "dataset_dict.json").is_file() or (Path(source) / "state.json").is_file():
            loaded = load_from_disk(source)
        else:
            loaded = load_dataset(source)
    except Exception as error:  # datasets and huggingface_hub raise many kinds; one sentence serves them all
        raise UsageError(f"{source} is no folder here, and datasets cannot load it ({first_line(error)}).") from None
    return DatasetDict({"train": loaded}) if isinstance(loaded, Dataset) else loaded


def _named_splits(loaded: DatasetDict, source: str) -> DatasetDict:
    if unnamed := [split for split in loaded if split.lower() not in SPLIT_NAMES]:
        raise UsageError(
            f"{source} has splits of unknown names ({', '.join(unnamed)}); known are {', '.join(SPLIT_NAMES)}."
        )
    return DatasetDict({SPLIT_NAMES[split.lower()]: dataset for split, dataset in loaded.items()})


def _columns(loaded: DatasetDict, source: str, group_column: str | None) -> _Columns:
    features = next(iter(loaded.values())).features
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
    own = features[labels[0]]
    if isinstance(own, ClassLabel):
        names = list(own.names)
    else:
        names = sorted({str(value) for dataset in loaded.values() for value in dataset.unique(labels[0])})
    group = group_column or ("group" if "group" in features else None)
    return _Columns(images[0], labels[0], group, names, isinstance(own, ClassLabel))


def _tidy(dataset: Dataset, split: str, columns: _Columns, names: list[str], group_pattern: str | None) -> Dataset:
    """One split with the columns of this package."""
    values = dataset[columns.label][:]
    ids = [names.index(columns.names[value] if columns.by_id else str(value)) for value in values]
    paths = dataset.cast_column(columns.image, Image(decode=False)).select_columns([columns.image])
    files = [str(row[columns.image].get("path") or f"{split}/{index}") for index, row in enumerate(paths)]
    tidy = dataset.select_columns([columns.image])
    tidy = tidy if columns.image == "image" else tidy.rename_column(columns.image, "image")
    tidy = tidy.add_column("labels", ids).add_column("file_name", files)
    if group_pattern:
        tidy = tidy.add_column("group", groups_of(files, group_pattern))
    elif columns.group:
        tidy = tidy.add_column("group", [str(group) for group in dataset[columns.group][:]])
    return tidy.cast_column("labels", ClassLabel(names=names))
