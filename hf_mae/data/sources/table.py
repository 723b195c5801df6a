"""Tables of images: parquet and Arrow files, datasets written by `save_to_disk`, and datasets of the Hub."""

import glob
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value, concatenate_datasets

from ...errors import UsageError, first_error_line, warn
from ...files.archive_members import ARCHIVE_SUFFIXES, TABLE_SUFFIX
from ...files.caches import datasets_cache_dir
from ..columns import arrow_column
from ..messages import DataMessage
from ..splits import SPLIT_NAMES, SPLITS, parse_split_name
from .arrow_offsets import locate_embedded_images
from .assign import container_split
from .kinds import Samples, SourceKind, SourceOptions
from .location import ARROW, Location
from .tables import (
    LABEL_COLUMNS,
    SPLIT_COLUMNS,
    check_class_names,
    find_group_column,
    find_split_columns,
    normalize_class_name,
    posix_paths,
)

logger = logging.getLogger(__name__)

PATH_COLUMNS = ("path", "file_path", "filepath", "image_path", "filename", "file")
SAVED_FILES = {"dataset_dict.json": "splits", "state.json": "_data_files"}  # of `save_to_disk`, with a key of each
TEXT_TYPES = (Value("string"), Value("large_string"))
STREAM_BATCH_ROWS = 64  # rows of a stream that are in memory
README = "README.md"  # a dataset card, with which `datasets` finds the splits


def _is_saved(location: Location, options: SourceOptions) -> bool:
    """Whether `save_to_disk` wrote a folder."""
    if location.is_remote:
        return any(location.relative(file) in SAVED_FILES for file in location.files)
    for name, key in SAVED_FILES.items():
        try:
            if location.is_folder and key in json.loads((location.path / name).read_text(encoding="utf-8")):
                return True
        except (OSError, ValueError, TypeError):
            continue
    return False


def _is_table(location: Location, options: SourceOptions) -> bool:
    """Whether a location is a table, or a folder or URL of tables without other images."""
    return not (location.is_folder and location.tree.images) and bool(location.tables)


def _may_be_hub_id(location: Location, options: SourceOptions) -> bool:
    is_id = location.uri.count("/") <= 1 and not location.uri.startswith((".", "/", "~"))
    return not location.is_remote and not location.exists and is_id


def _load(source: str, load: Callable[[], Dataset | DatasetDict]) -> Dataset | DatasetDict:
    """Loads a dataset, with the errors of `datasets` and huggingface_hub (many classes) as a UsageError."""
    try:
        return load()
    except Exception as error:
        raise UsageError(DataMessage.DATASET_NOT_LOADED, source=source, reason=first_error_line(error)) from None


def _read_saved(location: Location, options: SourceOptions) -> Samples:
    from datasets import load_from_disk

    return make_samples(location, _load(location.uri, lambda: load_from_disk(location.uri)), options)


def _read_hub(location: Location, options: SourceOptions) -> Samples:
    from datasets import load_dataset

    return make_samples(
        location, _load(location.uri, lambda: load_dataset(location.uri, cache_dir=datasets_cache_dir())), options
    )


def _read_tables(location: Location, options: SourceOptions) -> Samples:
    from datasets import load_dataset

    if location.is_folder and (location.path / README).is_file():
        return make_samples(
            location, _load(location.uri, lambda: load_dataset(location.uri, cache_dir=datasets_cache_dir())), options
        )
    files = defaultdict(list)
    for file in location.tables:
        files[container_split(location.relative(file)) or ""].append(file)
    builder = "arrow" if location.file_type == ARROW or location.tables[0].lower().endswith(".arrow") else "parquet"
    data_files = {
        split or "unnamed": [file if location.is_remote else glob.escape(file) for file in paths]
        for split, paths in sorted(files.items(), key=lambda item: SPLITS.index(item[0]) if item[0] else -1)
    }
    loaded = _load(location.uri, lambda: load_dataset(builder, data_files=data_files, cache_dir=datasets_cache_dir()))
    parts = {"" if name == "unnamed" else name: loaded[name] for name in data_files}
    return make_samples(
        location, parts, options, {split: location.relative(paths[0]) for split, paths in files.items()}
    )


def make_samples(
    location: Location,
    loaded: Dataset | DatasetDict | dict[str, Dataset],
    options: SourceOptions,
    containers: dict[str, str] | None = None,
) -> Samples:
    """Makes the samples of a dataset.

    Args:
        location: the source.
        loaded: parts by the name of their split; an empty name, or a single dataset, if none is stated.
        options: options of the source.
        containers: part -> name of its first file, which states the split; None if the names of the parts do.
    """
    if isinstance(loaded, Dataset):  # a part of a dataset keeps the name of its split
        name = str(loaded.split or "")
        loaded = {name if parse_split_name(name) else "": loaded}
    parts = dict(loaded)
    parts = {name: _cast_image_column(dataset) for name, dataset in parts.items()}
    reader = _PartReader(location.uri, parts, options)
    stated = reader.stated_columns() if options.labelled else {}
    if containers is None and "" not in parts and stated and not any(name.lower() in SPLIT_COLUMNS for name in stated):
        _check_part_names(parts, location.uri)
    data, paths, stored_paths = reader.read_images()
    excluded = Counter() if containers is None else location.count_others(location.tables)
    if not options.labelled:
        return Samples(data, paths=lambda: paths, excluded=excluded)
    if containers is None and "" not in parts:
        containers = {name: name for name in parts}
    names = {part: (containers or {}).get(part, "") for part in parts}
    return Samples(
        data,
        paths=lambda: paths,
        stored_paths=None if stored_paths == paths else lambda: stored_paths,
        stated=stated,
        containers=lambda: [names[part] for part, dataset in parts.items() for _ in range(len(dataset))],
        class_names=reader.ordered_class_names(),
        locate=reader.locate,
        excluded=excluded,
        labels_required=True,
    )


def _check_part_names(datasets: dict[str, Dataset], source: str) -> None:
    """Raises UsageError if a name of a part is not a split, or if two names are the same split."""
    parsed = [parse_split_name(name) for name in datasets]
    if unknown := [name for name in datasets if parse_split_name(name) is None]:
        raise UsageError(DataMessage.UNKNOWN_SPLIT_NAMES, source=source, unknown=unknown, known=SPLIT_NAMES)
    if repeated := sorted({str(split) for split in parsed if parsed.count(split) > 1}):
        raise UsageError(DataMessage.SEVERAL_SPLITS_WITH_ONE_NAME, source=source, names=repeated, splits=list(datasets))


def _cast_image_column(dataset: Dataset) -> Dataset:
    """Casts a single column of bytes, or of `{"bytes", "path"}`, to `Image`, unless there is an image column."""
    if any(isinstance(feature, Image) for feature in dataset.features.values()):
        return dataset
    encoded = [name for name, feature in dataset.features.items() if _is_encoded_image(feature)]
    return dataset.cast_column(encoded[0], Image()) if len(encoded) == 1 else dataset


def _is_encoded_image(feature: Any) -> bool:
    binary_types = (Value("binary"), Value("large_binary"))
    return feature in binary_types or isinstance(feature, dict) and feature.get("bytes") in binary_types


def _find_image_column(features: Features, source: str) -> str:
    images = [name for name, feature in features.items() if isinstance(feature, Image)]
    images = images or [name for name, feature in features.items() if _is_encoded_image(feature)]
    if len(images) != 1:
        raise UsageError(
            DataMessage.IMAGE_COLUMN_NOT_UNIQUE, source=source, images=images or "none", columns=list(features)
        )
    return images[0]


class _PartReader:
    """Reads the columns of the parts (splits or files) of a dataset, by their content."""

    def __init__(self, source: str, datasets: dict[str, Dataset], options: SourceOptions):
        self.source, self.datasets, self.options = source, datasets, options
        self.features = next(iter(datasets.values())).features
        if options.labelled:
            self._find_labelled_columns()
        else:
            self.image = ""

    def _find_labelled_columns(self) -> None:
        for part, dataset in self.datasets.items():
            if set(dataset.features) != set(self.features):
                raise UsageError(
                    DataMessage.SPLIT_COLUMNS_DIFFER,
                    source=self.source,
                    split=part,
                    columns=list(dataset.features),
                    expected=list(self.features),
                )
        images = [name for name, feature in self.features.items() if isinstance(feature, Image)]
        labels = [name for name, feature in self.features.items() if isinstance(feature, ClassLabel)]
        labels = labels or [name for name in LABEL_COLUMNS if name in self.features]
        if len(images) != 1 or len(labels) != 1:
            raise UsageError(
                DataMessage.IMAGE_OR_LABEL_COLUMN_NOT_UNIQUE,
                source=self.source,
                images=images or "none",
                labels=labels or "none",
                columns=list(self.features),
            )
        group = self.options.group_column
        if group and group not in self.features:
            raise UsageError(
                DataMessage.COLUMNS_MISSING, path=self.source, columns=[group], existing=list(self.features)
            )
        self.image, self.label = images[0], labels[0]

    def read_images(self) -> tuple[Dataset, list[str], list[str]]:
        """Returns the images with their names, and the paths that the column `file_name` and the images state."""
        images, names, paths, stored_paths = [], [], [], []
        for part, dataset in self.datasets.items():
            column = self.image or _find_image_column(dataset.features, self.source)
            values = arrow_column(dataset, column)
            split = part or "train"
            if empty := pc.indices_nonzero(pc.is_null(values)).to_pylist():
                raise UsageError(DataMessage.ROWS_WITHOUT_IMAGE, split=split, count=len(empty), row=empty[0])
            stored = [path or "" for path in self._stored_paths(dataset, values)]
            stated = self._file_names(dataset) or stored
            stored_paths += posix_paths(stored)
            paths += posix_paths(stated)
            names += [name or f"{split}/{row}" for row, name in enumerate(stated)]
            images.append(self._select_images(dataset, column))
        data = concatenate_datasets(images)
        names = names if self.options.labelled else [name.lstrip("/") for name in names]
        return data.add_column("file_name", self._make_unique(names)), paths, stored_paths

    def _stored_paths(self, dataset: Dataset, images: Any) -> list[str | None]:
        """Returns the paths of the images, or else a column of paths."""
        paths = pc.struct_field(images, "path")
        others = [name for name in PATH_COLUMNS if dataset.features.get(name) == Value("string")]
        if others and paths.null_count == len(paths):
            paths = arrow_column(dataset, others[0])
        values: list[str | None] = paths.to_pylist()
        return values

    def _file_names(self, dataset: Dataset) -> list[str] | None:
        """Returns the column `file_name`; None without.

        Raises:
            UsageError: If a name is missing.
        """
        if dataset.features.get("file_name") not in TEXT_TYPES:
            return None
        names: list[str] = arrow_column(dataset, "file_name").to_pylist()
        for row, name in enumerate(names):
            if not (name or "").strip():
                location = f"{self.source}, row {row}"
                raise UsageError(DataMessage.MANIFEST_VALUE_MISSING, location=location, column="file_name", row=name)
        return names

    def _select_images(self, dataset: Dataset, column: str) -> Dataset:
        """Selects the images; without labels, if possible, as paths into the Arrow files."""
        located = None if self.options.labelled else locate_embedded_images(dataset, column)
        if located is not None:
            return Dataset.from_dict({"image": located}, features=Features({"image": Image()}))
        images = dataset.select_columns([column])
        return images if column == "image" else images.rename_column(column, "image")

    def _make_unique(self, names: list[str]) -> list[str]:
        """Prepends split and row number if names are repeated, with a warning if a column states them."""
        if len(set(names)) == len(names):
            return names
        if "file_name" in self.features:
            repeated = [name for name, count in Counter(names).items() if count > 1]
            warn(logger, DataMessage.TABLE_NAMES_REPEATED, source=self.source, count=len(repeated), name=repeated[0])
        rows = [(part or "train", row) for part, dataset in self.datasets.items() for row in range(len(dataset))]
        return [f"{part}/{row}/{name}" for (part, row), name in zip(rows, names)]

    def stated_columns(self) -> dict[str, Callable[[], list[Any]]]:
        """Returns the functions that read the labels, splits and groups."""
        stated: dict[str, Callable[[], list[Any]]] = {"label": self._read_labels}
        names = [name for name in self.features if name not in (self.image, self.label)]
        group = find_group_column(
            {name: partial(self._read_column, name) for name in names}, self.options.group_column, self.source
        )
        texts = {name: partial(self._iter_texts, name) for name in names}
        others = ("file_name", "label", "group", group)
        stated |= {name: partial(self._read_column, name) for name in find_split_columns(texts, others)}
        if group:
            stated["group"] = partial(self._read_column, group)
        return stated

    def _iter_texts(self, name: str) -> Iterator[Any]:
        for dataset in self.datasets.values():
            if dataset.features[name] in (Value("string"), Value("large_string")):
                yield from (value.as_py() for value in arrow_column(dataset, name))

    def _read_column(self, name: str) -> list[Any]:
        values: list[Any] = []
        for part, dataset in self.datasets.items():
            column, feature = arrow_column(dataset, name).to_pylist(), dataset.features[name]
            if isinstance(feature, ClassLabel):
                column = [self._class_name(feature, column, row, part) for row in range(len(column))]
            values += column
        return values

    def _read_labels(self) -> list[Any]:
        return self._read_column(self.label)

    def _class_name(self, feature: ClassLabel, values: list[int | None], row: int, part: str) -> str:
        value = values[row]
        if value is not None and 0 <= value < len(feature.names):
            return feature.names[value]
        invalid = [item for item in values if item is None or not 0 <= item < len(feature.names)]
        raise UsageError(
            DataMessage.ROWS_WITHOUT_LABEL,
            location=f"{self.source}, {part or 'train'}",
            count=len(invalid),
            row=row,
            value=value,
        )

    def ordered_class_names(self) -> list[str] | None:
        """Returns the classes in the order of the first part with class ids, then those of other parts."""
        names: dict[str, None] = {}
        for dataset in self.datasets.values():
            if isinstance(feature := dataset.features[self.label], ClassLabel):
                names |= dict.fromkeys(feature.names)
        check_class_names(names, self.source)
        return list(dict.fromkeys(map(normalize_class_name, names))) or None

    def locate(self, row: int, column: str) -> str:
        """Returns the location of a value: source, part, row and column."""
        for part, dataset in self.datasets.items():
            if row < len(dataset):
                return f"{self.source}, {part or 'train'}, row {row}, {self.label if column == 'label' else column}"
            row -= len(dataset)
        raise IndexError(row)


def _list_hub_stream_files(location: Location) -> tuple[list[str], int | None]:
    from datasets import load_dataset_builder

    try:
        builder = load_dataset_builder(location.uri, cache_dir=datasets_cache_dir())
    except Exception as error:  # as in `_load`
        raise UsageError(DataMessage.DATASET_NOT_LOADED, source=location.uri, reason=first_error_line(error)) from None
    parts, splits = builder.config.data_files, builder.info.splits or {}
    count = sum(splits[name].num_examples for name in parts) if set(parts) <= set(splits) else None
    files = sorted(str(file) for part in parts.values() for file in part)
    return [file for file in files if file.lower().endswith((*ARCHIVE_SUFFIXES, TABLE_SUFFIX))], count


def _list_stream_files(location: Location) -> tuple[list[str], int | None]:
    return location.tables, None


def iter_table_images(file: str, opened: IO[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Reads an open parquet file from start to end: name and undecoded image of each row."""
    table = pq.ParquetFile(opened)
    features = Features.from_arrow_schema(table.schema_arrow)
    image = _find_image_column(features, file)
    columns = [image, *(["file_name"] if features.get("file_name") in TEXT_TYPES else [])]
    number = 0
    for batch in table.iter_batches(STREAM_BATCH_ROWS, columns=columns):
        for row in batch.to_pylist():
            encoded = row[image] if isinstance(row[image], dict) else {"bytes": row[image], "path": None}
            name = row.get("file_name") or encoded.get("path") or f"image {number}"
            yield name, {"bytes": encoded["bytes"], "path": encoded.get("path") or name}
            number += 1


SAVED = SourceKind(_is_saved, _read_saved, is_packed=True)
TABLES = SourceKind(_is_table, _read_tables, is_packed=True, stream_files=_list_stream_files)
HUB = SourceKind(_may_be_hub_id, _read_hub, is_packed=True, stream_files=_list_hub_stream_files)
