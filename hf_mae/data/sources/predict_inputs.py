"""Iterates over the inputs of `hf-mae predict` (files, folders, globs, videos and archives), image by image."""

import glob
import os
from collections import deque
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from PIL import Image

from ...errors import UsageError
from ...files.archive_members import ARCHIVE_SUFFIXES, TABLE_SUFFIX, is_remote
from ..images.frames import iter_named_frames, read_single_image
from ..images.image_error import summarize_image_error
from ..images.image_io import ImageSource
from ..images.videos import estimate_num_frames, is_video
from ..messages import DataMessage
from .image_files import check_utf8_names, readable_suffixes, walk_images
from .kinds import SourceOptions
from .location import ARROW, PARQUET, TAR, ZIP, local_file_type
from .source import Source, log_ignored, open_source

LOOKUP_CHUNK = 1000  # members that are read from a table at once


def find_input_paths(patterns: list[str], include_videos: bool = False) -> list[str]:
    """Resolves files, folders (recursively, sorted) and globs to files, in the given order.

    Args:
        patterns: files, folders and globs.
        include_videos: list videos in folders, too, and keep archives and tables of images as single entries.

    Raises:
        UsageError: If a pattern matches nothing.
    """
    paths = []
    for pattern in patterns:
        source = _open_collection(pattern) if include_videos else None
        if source is not None and source.is_packed:
            paths.append(pattern)
        elif os.path.isdir(pattern):
            tree = source.location.tree if source else walk_images(pattern)
            log_ignored(pattern, tree.ignored_counts)
            files = sorted(os.path.join(pattern, name) for name in tree.images)
            files = [file for file in files if include_videos or not is_video(file)]
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


def _open_collection(path: str) -> Source | None:
    """Opens a folder, or a file or URL that may be an archive or a table of images; None for other paths."""
    may_be_packed = is_remote(path) or path.lower().endswith((*ARCHIVE_SUFFIXES, TABLE_SUFFIX))
    if may_be_packed or os.path.isdir(path) or (os.path.isfile(path) and _is_packed_file(path)):
        return open_source(path)
    return None


def is_collection(path: str) -> bool:
    """Whether a path is an archive or a table of images, or a folder or URL of these."""
    return (source := _open_collection(path)) is not None and source.is_packed


def _is_packed_file(path: str) -> bool:
    """Whether a file whose name is not that of an image is an archive or a table by its content."""
    return not path.lower().endswith(readable_suffixes()) and local_file_type(path) in (TAR, ZIP, PARQUET, ARROW)


@lru_cache(maxsize=4)
def _load_collection(path: str) -> Any:
    """Loads the images of a collection, as an Arrow-formatted dataset."""
    samples = open_source(path, SourceOptions(labelled=False)).samples
    return samples.data.select_columns(["image", "file_name"]).with_format("arrow")


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


def iter_inputs(paths: list[str], shard: Shard = Shard()) -> Iterator[tuple[str, ImageSource]]:
    """Yields the name and the source (see `read_rgb`) of each file and each image of a collection.

    Args:
        paths: files and collections.
        shard: the part of this process.
    """
    for path, images, rows in _shard_paths(paths, shard):
        if images is None:
            yield path, path
        else:
            yield from _iter_members(path, images, rows)


def _iter_members(path: str, collection: Any, rows: range) -> Iterator[tuple[str, ImageSource]]:
    for start in range(rows.start, rows.stop, LOOKUP_CHUNK):
        table = collection[start : min(start + LOOKUP_CHUNK, rows.stop)]
        for file_name, image in zip(table.column("file_name").to_pylist(), table.column("image")):
            yield f"{path.rstrip('/')}/{file_name}", image.as_py()


def iter_pixel_values(
    inputs: Iterable[tuple[str, ImageSource]],
    processor: Any,
    fps: float,
    num_workers: int,
    *,
    completed_names: Container[str] = (),
    lookahead: int = 64,
) -> Iterator[tuple[str, Any]]:
    """Yields, in order, the name of each image and frame, and its pixel values (C, H, W) or the reason (text) why it
    cannot be read.

    Images are decoded in threads. At most `num_workers` + 1 of them are in memory at full size.

    Args:
        inputs: result of `iter_inputs`.
        processor: image processor.
        fps: frames per second that are read from videos, and from other files with frame times.
        num_workers: number of threads.
        completed_names: names to skip.
        lookahead: number of images that are prepared in advance.
    """
    with ThreadPoolExecutor(num_workers) as pool:
        loader = _PixelValueLoader(processor, fps, num_workers, completed_names, pool)
        queue: deque[tuple[str, ImageSource, Future]] = deque()
        for name, source in inputs:
            if name in completed_names:
                continue
            queue.append((name, source, pool.submit(loader.load, name, source)))
            if len(queue) > lookahead:
                yield from loader.finish(*queue.popleft())
        while queue:
            yield from loader.finish(*queue.popleft())


@dataclass
class _PixelValueLoader:
    """See `iter_pixel_values`."""

    processor: Any
    fps: float
    num_workers: int
    completed_names: Container[str]
    pool: ThreadPoolExecutor

    def preprocess(self, image: Image.Image) -> Any:
        """Returns the pixel values (C, H, W)."""
        return self.processor(image, return_tensors="pt")["pixel_values"][0]

    def load(self, name: str, source: ImageSource) -> Any:
        """Returns the pixel values of an image, a reason, or None for a file with several frames."""
        try:
            image = read_single_image(source)
            return None if image is None else self.preprocess(image)
        except Exception as error:  # e.g. of an archive that was removed
            return summarize_image_error(error, name)

    def finish(self, name: str, source: ImageSource, future: Future) -> Iterator[tuple[str, Any]]:
        """Yields the result of `load`, or of each frame."""
        if (result := future.result()) is None:
            yield from self._load_frames(name, source)
        else:
            yield name, result

    def _load_frames(self, name: str, source: ImageSource) -> Iterator[tuple[str, Any]]:
        """Decodes frames one after the other, and preprocesses them in threads."""
        pending: deque[tuple[str, Future]] = deque()
        reason = None
        try:
            for frame_name, image in iter_named_frames(name, source, self.fps, self.completed_names):
                pending.append((frame_name, self.pool.submit(self.preprocess, image)))
                if len(pending) > self.num_workers:
                    first_name, future = pending.popleft()
                    yield first_name, future.result()
        except Exception as error:  # as in `load`; the frames before the error are valid
            reason = summarize_image_error(error, name)
        yield from ((frame_name, future.result()) for frame_name, future in pending)
        if reason is not None:
            yield name, reason


def estimate_total(paths: list[str], fps: float, shard: Shard = Shard()) -> int:
    """Counts images and frames; approximate if there are videos, or other files with several frames."""
    return sum(
        estimate_num_frames(path, fps) if images is None and is_video(path) else len(rows)
        for path, images, rows in _shard_paths(paths, shard)
    )
