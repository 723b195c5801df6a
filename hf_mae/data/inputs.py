"""What `hf-mae predict` is given: files, folders, globs and videos -> images, one after the other."""

import glob
import os
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import UsageError


def find_images(patterns: list[str], videos: bool = False) -> list[str]:
    """Files from files, folders (searched whole, sorted) and globs, in the order given.

    Args:
        videos: look for them in folders too.

    Raises:
        UsageError: a pattern that stands for nothing.
    """
    from .files import image_files_below, refuse_odd_names

    found = []
    for pattern in patterns:
        if os.path.isdir(pattern):
            inside = image_files_below(pattern)
            if videos:
                from .videos import videos_below

                inside += videos_below(pattern)
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
    refuse_odd_names(found, "What is to be read")
    return found


def sources(paths: list[str], fps: float, done: set[str]) -> Iterator[tuple[str, Callable]]:
    """Name and opener (-> a PIL image) of every image, and of the frames of every video, that is not done.

    Args:
        fps: frames a second that are taken of videos.
        done: names to pass over.
    """
    from .opening import open_image
    from .videos import frame_name, frames, is_video

    for path in paths:
        if not is_video(path):
            if path not in done:
                yield path, lambda path=path: open_image(path)
            continue
        try:
            for seconds, image in frames(path, fps):
                if (name := frame_name(path, seconds)) not in done:
                    yield name, lambda image=image: image
        except OSError as error:
            yield path, lambda error=error: _raise(error)


def _raise(error: Exception):
    raise error


def prepare(name: str, opener: Callable, processor: Any):
    """Pixel values (C, H, W) of an image, or the sentence on why there are none."""
    from .opening import to_rgb

    try:
        with opener() as image:
            return processor(to_rgb(image), return_tensors="pt")["pixel_values"][0]
    except FileNotFoundError:
        return "no such file"
    except Exception as error:  # PIL raises whatever the format's plugin does
        return " ".join(str(error).replace(name, "the file").split()) or type(error).__name__


def expected(paths: list[str], fps: float) -> int:
    """How many rows there will be, about, where there are videos."""
    from .videos import is_video, number_of_frames

    return sum(number_of_frames(path, fps) if is_video(path) else 1 for path in paths)
