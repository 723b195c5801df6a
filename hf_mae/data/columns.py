"""Columns of the datasets of this package: `image`, `file_name`, and, if known, `labels` and `group`."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Image

from ..files.archive_members import all_archives_exist, all_files_exist, archives_and_sizes, parse_member, stored_sizes


def arrow_column(dataset: Dataset, name: str) -> pa.ChunkedArray:
    """Returns a column as an Arrow array; for a dataset on disk it is memory-mapped."""
    table = dataset.with_format("arrow").select_columns([name])[:]
    return table.column(name)


def select_rows(dataset: Dataset, rows: list[int]) -> Dataset:
    """Selects rows of a dataset: a view if they are contiguous, and a new table if the dataset is in memory."""
    first, last = rows[0], rows[-1]
    if last - first + 1 == len(rows):
        return dataset.select(range(first, last + 1))
    if dataset.cache_files:
        return dataset.select(rows)
    return Dataset(dataset.data.table.take(rows), info=dataset.info)


def get_column(dataset: Dataset, name: str) -> list | None:
    """Returns a column as a list; None if it does not exist."""
    return dataset[name][:] if name in dataset.column_names else None


def get_label_ids(dataset: Dataset) -> np.ndarray | None:
    """Returns the class ids; None without labels."""
    return arrow_column(dataset, "labels").to_numpy() if "labels" in dataset.column_names else None


def is_image_dataset(dataset: Any) -> bool:
    """Whether a dataset has undecoded images, rather than tensors of the user's own transform."""
    if not isinstance(dataset, Dataset) or dataset.format["type"] not in (None, "python"):
        return False
    return "image" in dataset.column_names


def standardize_columns(dataset: Dataset) -> Dataset:
    """Returns a dataset of images with the columns of this package: `image`, `labels`, `file_name`.

    `datasets.load_dataset("imagefolder")` names the class `label`; file names are taken from the paths.
    """
    if "labels" not in dataset.column_names and "label" in dataset.column_names:
        dataset = dataset.rename_column("label", "labels")
    if "file_name" not in dataset.column_names:
        undecoded = dataset.select_columns(["image"]).cast_column("image", Image(decode=False))
        names = [str(row["image"].get("path") or index) for index, row in enumerate(undecoded)]
        dataset = dataset.add_column("file_name", names)
    return dataset


def get_image_paths(dataset: Dataset) -> list[str]:
    """Returns the paths of the images, if each is a file or an archive member; an empty list for images in a table."""
    paths = arrow_image_paths(dataset)
    return [] if paths is None else paths.to_pylist()


def arrow_image_paths(dataset: Dataset) -> pa.ChunkedArray | None:
    """Returns `get_image_paths` as an Arrow array; None for images in a table."""
    images = arrow_column(dataset, "image")
    paths = pc.struct_field(images, "path")
    if paths.null_count or pc.struct_field(images, "bytes").null_count < len(images) or not len(paths):
        return None
    archives = archives_and_sizes(paths)
    exist = all_files_exist(paths.to_pylist()) if archives is None else all_archives_exist(archives[0])
    return paths if exist else None


def has_archived_images(dataset: Dataset) -> bool:
    """Whether the images are members of archives."""
    path = dataset.cast_column("image", Image(decode=False))[0]["image"]["path"] if len(dataset) else None
    return path is not None and parse_member(path) is not None


def image_byte_sizes(dataset: Dataset) -> pa.ChunkedArray | None:
    """Returns the file size of each image in bytes; None for images in a table."""
    if archives := archives_and_sizes(pc.struct_field(arrow_column(dataset, "image"), "path")):
        return archives[1]
    paths = arrow_image_paths(dataset)
    return None if paths is None else pa.chunked_array([stored_sizes(paths.to_pylist())], pa.int64())
