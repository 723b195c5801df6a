"""Iterates over the inputs of `hf-mae predict` (files, folders, globs, videos and archives), image by image."""

import glob
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ...errors import UsageError
from ...files.archive_members import ARCHIVE_SUFFIXES, TABLE_SUFFIX, is_remote
from ..messages import DataMessage

LOOKUP_CHUNK = 1000  # members that are read from a table at once


def find_input_paths(patterns: list[str], include_videos: bool = False) -> list[str]:
    """Resolves files, folders (recursively, sorted) and globs to files, in the given order.

    Args:
        patterns: files, folders and globs.
        include_videos: list videos in folders, too, and keep archives and tables of images as single entries.

    Raises:
        UsageError: If a pattern matches nothing.
    """
    from .image_files import check_utf8_names, list_image_files

    paths = []
    for pattern in patterns:
        if include_videos and is_collection(pattern):
            paths.append(pattern)
        elif os.path.isdir(pattern):
            files = list_image_files(pattern)
            if include_videos:
                from ..images.videos import find_videos

                files += find_videos(pattern)
            if not files:
                raise UsageError(DataMessage.NO_IMAGES_IN_FOLDER, folder=pattern)
            paths += files
        elif glob.has_magic(pattern) and not os.path.exists(pattern):
            files = sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
            if not files:
                raise UsageError(DataMessage.GLOB_MATCHES_NOTHING, pattern=pattern)
            paths += files
        else:
            paths.append(pattern)  # a missing file is reported later, in its row
    check_utf8_names(paths, "The input")
    return paths


def is_collection(path: str) -> bool:
    """Whether a path is an archive or a table of images, or a folder or URL of these."""
    if not (is_remote(path) or path.lower().endswith((*ARCHIVE_SUFFIXES, TABLE_SUFFIX)) or os.path.isdir(path)):
        return False
    from .source_type import is_packed_source

    return is_packed_source(path)


@lru_cache(maxsize=4)
def _load_collection(path: str) -> Any:
    """Loads the images of a collection, as an Arrow-formatted dataset."""
    from datasets import concatenate_datasets

    from .hf_datasets import load_images

    splits = [part.select_columns(["image", "file_name"]) for part in load_images(path).values()]
    return (splits[0] if len(splits) == 1 else concatenate_datasets(splits)).with_format("arrow")


@dataclass(frozen=True)
class Shard:
    """The contiguous part of the images that one of `num_shards` processes handles; `index` counts from 0."""

    index: int = 0
    num_shards: int = 1

    def bounds(self, count: int) -> tuple[int, int]:
        """Returns start and stop of this shard of `count` images."""
        return self.index * count // self.num_shards, (self.index + 1) * count // self.num_shards


def _shard_paths(paths: list[str], shard: Shard) -> Iterator[tuple[str, Any, range]]:
    """Yields the paths of a shard: path, its images (None for a file), and the rows that belong to the shard.

    A file has one row, also if it is a video.
    """
    collections = [_load_collection(path) if is_collection(path) else None for path in paths]
    sizes = [1 if images is None else len(images) for images in collections]
    (first, last), offset = shard.bounds(sum(sizes)), 0
    for path, images, size in zip(paths, collections, sizes):
        rows = range(max(first - offset, 0), min(last - offset, size))
        if rows:
            yield path, images, rows
        offset += size


def iter_inputs(
    paths: list[str], fps: float, completed_names: set[str], shard: Shard = Shard()
) -> Iterator[tuple[str, Callable]]:
    """Yields the name and opener (returns a PIL image) of each image and video frame that is not completed.

    Args:
        paths: files and collections.
        fps: frames per second that are read from videos.
        completed_names: names to skip.
        shard: the part of this process.
    """
    for path, images, rows in _shard_paths(paths, shard):
        yield from (
            _iter_file(path, fps, completed_names)
            if images is None
            else _iter_members(path, images, rows, completed_names)
        )


def _iter_members(path: str, collection: Any, rows: range, completed_names: set[str]) -> Iterator[tuple[str, Callable]]:
    from ..images.image_io import open_encoded

    for start in range(rows.start, rows.stop, LOOKUP_CHUNK):
        table = collection[start : min(start + LOOKUP_CHUNK, rows.stop)]
        for file_name, image in zip(table.column("file_name").to_pylist(), table.column("image")):
            if (name := f"{path.rstrip('/')}/{file_name}") not in completed_names:
                yield name, lambda image=image: open_encoded(image.as_py())


def _iter_file(path: str, fps: float, completed_names: set[str]) -> Iterator[tuple[str, Callable]]:
    """Yields an image, or the frames of a video."""
    from ..images.image_io import open_image
    from ..images.videos import frame_name, is_video, iter_frames

    if not is_video(path):
        if path not in completed_names:
            yield path, lambda: open_image(path)
        return
    try:
        for seconds, image in iter_frames(path, fps):
            if (name := frame_name(path, seconds)) not in completed_names:
                yield name, lambda image=image: image
    except OSError as error:
        yield path, lambda error=error: _raise(error)


def _raise(error: Exception):
    raise error


def load_pixel_values(name: str, opener: Callable, processor: Any):
    """Loads the pixel values (C, H, W) of an image, or returns the reason (text) why it cannot be read."""
    from ..images.image_io import to_rgb

    try:
        with opener() as image:
            return processor(to_rgb(image), return_tensors="pt")["pixel_values"][0]
    except FileNotFoundError:
        return "no such file"
    except Exception as error:  # PIL's plugins raise many exception classes
        return " ".join(str(error).replace(name, "the file").split()) or type(error).__name__


def estimate_total(paths: list[str], fps: float, shard: Shard = Shard()) -> int:
    """Counts images and frames; approximate if there are videos."""
    from ..images.videos import estimate_num_frames, is_video

    return sum(
        estimate_num_frames(path, fps) if images is None and is_video(path) else len(rows)
        for path, images, rows in _shard_paths(paths, shard)
    )
