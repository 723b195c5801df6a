"""Hub data sets, parquet folders and saved data sets -> the columns that this package works with."""

from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Image

from ..errors import UsageError
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
    from datasets import load_dataset, load_from_disk

    try:
        if (Path(source) / "dataset_dict.json").is_file() or (Path(source) / "state.json").is_file():
            loaded = load_from_disk(source)
        else:
            loaded = load_dataset(source)
    except Exception as error:  # datasets and huggingface_hub raise many kinds; one sentence serves them all
        reason = str(error).strip().split("\n")[0]
        raise UsageError(f"{source} is no folder here, and datasets cannot load it ({reason}).") from None
    if isinstance(loaded, Dataset):
        loaded = DatasetDict({"train": loaded})
    unnamed = [split for split in loaded if split.lower() not in SPLIT_NAMES]
    if unnamed:
        raise UsageError(
            f"{source} has splits of unknown names ({', '.join(unnamed)}); known are {', '.join(SPLIT_NAMES)}."
        )
    loaded = DatasetDict({SPLIT_NAMES[split.lower()]: dataset for split, dataset in loaded.items()})
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
        own_names = list(own.names)
    else:
        own_names = sorted({str(value) for dataset in loaded.values() for value in dataset.unique(labels[0])})
    names = label_names or own_names
    if unknown := [name for name in own_names if name not in names]:
        raise UsageError(f"{source} has classes that the checkpoint does not know: {', '.join(unknown)}.")
    result = DatasetDict()
    for split in SPLITS:
        if split not in loaded:
            continue
        dataset = loaded[split]
        values = dataset[labels[0]][:]
        ids = [names.index(own_names[v] if isinstance(own, ClassLabel) else str(v)) for v in values]
        paths = dataset.cast_column(images[0], Image(decode=False)).select_columns(images)
        file_names = [row[images[0]].get("path") or f"{split}/{index}" for index, row in enumerate(paths)]
        tidy = dataset.select_columns(images)
        tidy = tidy if images == ["image"] else tidy.rename_column(images[0], "image")
        tidy = tidy.add_column("labels", ids).add_column("file_name", [str(name) for name in file_names])
        if group_pattern:
            tidy = tidy.add_column("group", groups_of(tidy["file_name"][:], group_pattern))
        elif (group_column or "group") in features:
            tidy = tidy.add_column("group", [str(group) for group in dataset[group_column or "group"][:]])
        result[split] = tidy.cast_column("labels", ClassLabel(names=names))
    return result
