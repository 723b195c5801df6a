"""Frames of files with several of them: images with frames, and videos."""

from collections.abc import Container, Iterator

from PIL import Image

from ...files.frame_names import FrameName
from .image_error import ImageError
from .image_io import ImageSource, open_image, read_rgb, split_frame_name
from .messages import ImageMessage
from .videos import FrameSampler, is_video, iter_frames


def read_single_image(source: ImageSource) -> Image.Image | None:
    """Decodes a source like `read_rgb`; returns None for a video, and for an image with several frames.

    Raises:
        ImageError: If it cannot be read.
        FileNotFoundError: If the file does not exist.
    """
    if split_frame_name(source)[1] is not None:
        return read_rgb(source)
    try:
        with open_image(source) as frames:
            return frames.read() if frames.num_frames == 1 else None
    except ImageError as error:
        if error.code in (ImageMessage.VIDEO_IS_NOT_AN_IMAGE, ImageMessage.VIDEO_PLAYLIST):
            return None
        if error.code is ImageMessage.UNSUPPORTED_FORMAT and isinstance(source, str) and is_video(source):
            return None  # a video without a known signature, or a damaged one
        raise


def iter_named_frames(
    name: str, source: ImageSource, fps: float, completed_names: Container[str] = ()
) -> Iterator[tuple[str, Image.Image]]:
    """Yields the name and the RGB image of each frame of a source with several frames.

    Args:
        name: name of the source. Frames are `NAME#frame=3`, or `NAME#t=1.500` if the file has frame times.
        source: see `read_rgb`.
        fps: frames per second that are read if the file has frame times.
        completed_names: names to skip.

    Raises:
        ImageError: If the source cannot be read; the frames before the damage are yielded first.
    """
    try:
        frames = open_image(source)
    except ImageError as error:
        if error.code is ImageMessage.VIDEO_IN_ARCHIVE:
            raise
        for seconds, image in iter_frames(str(source), fps):
            if (frame_name := str(FrameName(name, seconds=seconds))) not in completed_names:
                yield frame_name, image
        return
    sampler = FrameSampler(fps)
    with frames:
        for index in range(frames.num_frames):
            frame = FrameName(name, index)
            if frames.times is not None:
                if not sampler.is_due(frames.times[index]):
                    continue
                frame = FrameName(name, seconds=frames.times[index])
            if str(frame) not in completed_names:
                yield str(frame), frames.read(index)
