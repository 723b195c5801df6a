"""Rows of frames: the frames of a file with several of them become images of their own (`--frames`)."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, Image, Value

from ...files.frame_names import FrameName
from ..images.image_io import count_frames

ALL, FIRST, MIDDLE = "all", "first", "middle"  # choices of --frames


def select_frame_indices(count: int, frames: str) -> list[int]:
    """Returns the numbers of the frames that are used."""
    return {ALL: list(range(count)), FIRST: [0], MIDDLE: [count // 2]}[frames]


def expand_frames(images: Dataset, frames: str, num_workers: int | None = None) -> tuple[Dataset, np.ndarray]:
    """Replaces the files with several frames by their frames; unreadable files stay, to be reported with the others.

    Args:
        images: with `image` and `file_name`.
        frames: `all`, `first` or `middle`.
        num_workers: number of threads that open the files.

    Returns:
        Rows with `image` and `file_name` (`stack.tif#frame=3`), and the row of `images` that each comes from.
    """
    undecoded = images.select_columns(["image", "file_name"]).cast_column("image", Image(decode=False))
    with ThreadPoolExecutor(num_workers or os.cpu_count() or 1) as pool:
        counts = list(pool.map(lambda row: _count(undecoded[row]["image"]), range(len(undecoded))))
    if max(counts, default=1) == 1:
        return images, np.arange(len(images))
    paths, contents, names, rows = [], [], [], []
    for row, count in enumerate(counts):
        item = undecoded[row]
        for index in select_frame_indices(count, frames) if count > 1 else [None]:
            image, name = item["image"], item["file_name"]
            path = image["path"] or name
            paths.append(image["path"] if index is None else str(FrameName(path, index)))
            contents.append(image["bytes"])
            names.append(name if index is None else str(FrameName(name, index)))
            rows.append(row)
    columns = pa.StructArray.from_arrays([pa.array(contents, pa.binary()), pa.array(paths)], ["bytes", "path"])
    features = Features({"image": Image(), "file_name": Value("string")})
    table = pa.table({"image": columns, "file_name": names})
    return Dataset(table, DatasetInfo(features=features)), np.asarray(rows)


def _count(image: dict[str, Any]) -> int:
    try:
        return count_frames(image)
    except OSError:  # reported when the images are checked
        return 1
