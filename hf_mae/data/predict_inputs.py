"""What `hf-mae predict` is given: files, folders, globs, videos and archives -> images, one after the other."""

import glob
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..errors import UsageError
from ..files.archive_members import ARCHIVE_SUFFIXES, TABLE_SUFFIX, is_remote

LOOKUP_CHUNK = 1000  # members that are looked up at once


def find_input_paths(patterns: list[str], include_videos: bool = False) -> list[str]:
    """Files from files, folders (searched whole, sorted) and globs, in the order given.

    Args:
        include_videos: look for them in folders too, and leave what images lie within as it is, for `sources`.

    Raises:
        UsageError: a pattern that stands for nothing.
    """
    from .image_files import check_utf8_names, list_image_files

    found = []
    for pattern in patterns:
        if include_videos and is_collection(pattern):
            found.append(pattern)
        elif os.path.isdir(pattern):
            inside = list_image_files(pattern)
            if include_videos:
                from .videos import find_videos

                inside += find_videos(pattern)
            if not inside:
                raise UsageError(f"The folder {pattern} holds no images.")
            found += inside
        elif glob.has_magic(pattern) and not os.path.exists(pattern):
            inside = sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
            if not inside:
                raise UsageError(f"Nothing matches {pattern}.")
            found += inside
        else:
            found.append(pattern)  # a file that is missing is reported with the others, in its place
    check_utf8_names(found, "What is to be read")
    return found


def is_collection(path: str) -> bool:
    """Whether it is an archive or a table of images, or a folder or URL of them."""
    if not (is_remote(path) or path.lower().endswith((*ARCHIVE_SUFFIXES, TABLE_SUFFIX)) or os.path.isdir(path)):
        return False
    from .source_type import is_packed_source

    return is_packed_source(path)


@lru_cache(maxsize=4)
def _load_collection(path: str) -> Any:
    """Its images, as Arrow has them."""
    from datasets import concatenate_datasets

    from .hf_datasets import load_images

    splits = [part.select_columns(["image", "file_name"]) for part in load_images(path).values()]
    return (splits[0] if len(splits) == 1 else concatenate_datasets(splits)).with_format("arrow")


@dataclass(frozen=True)
class Shard:
    """Which of several processes this one is, from 0, and of how many: each takes images that follow each other."""

    index: int = 0
    num_shards: int = 1

    def bounds(self, count: int) -> tuple[int, int]:
        """The first of `count` images that is its own, and the first that is the next one's."""
        return self.index * count // self.num_shards, (self.index + 1) * count // self.num_shards


def _shard_paths(paths: list[str], shard: Shard) -> Iterator[tuple[str, Any, range]]:
    """The paths that a process has to do with: path, the images within (None: it is a file), and which of these, or of
    the one that a file is (a video counts as one), are its own."""
    inside = [_load_collection(path) if is_collection(path) else None for path in paths]
    sizes = [1 if images is None else len(images) for images in inside]
    (first, last), place = shard.bounds(sum(sizes)), 0
    for path, images, size in zip(paths, inside, sizes):
        own = range(max(first - place, 0), min(last - place, size))
        if own:
            yield path, images, own
        place += size


def iter_inputs(
    paths: list[str], fps: float, completed_names: set[str], shard: Shard = Shard()
) -> Iterator[tuple[str, Callable]]:
    """Name and opener (-> a PIL image) of every image, and of the frames of every video, that is not done.

    Args:
        fps: frames a second that are taken of videos.
        completed_names: names to pass over.
        shard: whose images, of several processes that share them.
    """
    for path, images, own in _shard_paths(paths, shard):
        yield from (
            _iter_file(path, fps, completed_names)
            if images is None
            else _iter_members(path, images, own, completed_names)
        )


def _iter_members(path: str, collection: Any, rows: range, completed_names: set[str]) -> Iterator[tuple[str, Callable]]:
    from .image_io import open_encoded

    for start in range(rows.start, rows.stop, LOOKUP_CHUNK):
        table = collection[start : min(start + LOOKUP_CHUNK, rows.stop)]
        for name, image in zip(table.column("file_name").to_pylist(), table.column("image")):
            if (whole := f"{path.rstrip('/')}/{name}") not in completed_names:
                yield whole, lambda image=image: open_encoded(image.as_py())


def _iter_file(path: str, fps: float, completed_names: set[str]) -> Iterator[tuple[str, Callable]]:
    """An image, or a video's frames."""
    from .image_io import open_image
    from .videos import frame_name, is_video, iter_frames

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
    """Pixel values (C, H, W) of an image, or the sentence on why there are none."""
    from .image_io import to_rgb

    try:
        with opener() as image:
            return processor(to_rgb(image), return_tensors="pt")["pixel_values"][0]
    except FileNotFoundError:
        return "no such file"
    except Exception as error:  # PIL raises whatever the format's plugin does
        return " ".join(str(error).replace(name, "the file").split()) or type(error).__name__


def estimate_total(paths: list[str], fps: float, shard: Shard = Shard()) -> int:
    """How many rows there will be, about, where there are videos."""
    from .videos import estimate_num_frames, is_video

    return sum(
        estimate_num_frames(path, fps) if images is None and is_video(path) else len(own)
        for path, images, own in _shard_paths(paths, shard)
    )
