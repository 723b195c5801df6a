"""Rows of frames: the frames of a file with several of them become images of their own (`--frames`)."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from datasets import Dataset, Features, Image, Value

from ...files.frame_names import FrameName
from ..images.image_io import count_frames
from .kinds import Samples

FRAME = re.compile(r"#frame=\d+$")


def select_frame_indices(count: int, frames: str) -> list[int]:
    """Returns the numbers of the frames that are used."""
    return {"all": list(range(count)), "first": [0], "middle": [count // 2]}[frames]


def expand_frames(samples: Samples, frames: str) -> Samples:
    """Replaces the files with several frames by their frames; unreadable files stay, to be reported with the others.

    Args:
        samples: the images of a source.
        frames: `all`, `first` or `middle`.

    Returns:
        Samples whose frames have the names `stack.tif#frame=3`, and what the source states about their file.
    """
    undecoded = samples.data.select_columns(["image", "file_name"]).cast_column("image", Image(decode=False))
    with ThreadPoolExecutor() as pool:
        counts = list(pool.map(lambda row: _count(undecoded[row]["image"]), range(len(undecoded))))
    if max(counts, default=1) == 1:
        return samples
    rows: list[int] = []
    images: list[dict[str, Any]] = []
    names: list[str] = []
    for row, count in enumerate(counts):
        item = undecoded[row]
        image, name = item["image"], item["file_name"]
        for index in select_frame_indices(count, frames) if count > 1 else [None]:
            path = image["path"] if index is None else str(FrameName(image["path"] or name, index))
            rows.append(row)
            images.append({"bytes": image["bytes"], "path": path})
            names.append(name if index is None else str(FrameName(name, index)))

    def repeat(read: Callable[[], Sequence[Any]]) -> Callable[[], list[Any]]:
        def read_repeated() -> list[Any]:
            values = read()
            return [values[row] for row in rows]

        return read_repeated

    features = Features({"image": Image(decode=False), "file_name": Value("string")})
    data = Dataset.from_dict({"image": images, "file_name": names}, features=features)
    data = data.cast_column("image", Image())
    for name in samples.extra_columns:
        column = samples.data[name][:]
        data = data.add_column(name, [column[row] for row in rows])
    return dataclasses.replace(
        samples,
        data=data,
        paths=repeat(samples.paths),
        stored_paths=samples.stored_paths and repeat(samples.stored_paths),
        stated={name: repeat(read) for name, read in samples.stated.items()},
        containers=samples.containers and repeat(samples.containers),
        locate=lambda row, column: samples.locate(rows[row], column),
    )


def group_frames(file_names: list[str]) -> list[str] | None:
    """Returns the file of each frame as its group, and each other image as a group of its own; None without frames."""
    if not any("#frame=" in name for name in file_names):
        return None
    groups = [FRAME.sub("", name) for name in file_names]
    return None if groups == file_names else groups


def _count(image: dict[str, Any]) -> int:
    try:
        return count_frames(image)
    except OSError:  # reported when the images are checked
        return 1
