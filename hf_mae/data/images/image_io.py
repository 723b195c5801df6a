"""Reads images: files, members of archives, encoded bytes and rows of a table -> upright 8-bit RGB.

All code that reads images uses this module; `decoding` decides the format and decodes the pixels. A source with several
frames (TIFF, GIF, WebP, APNG, DICOM, MetaImage) is read frame by frame: its frames have names like `stack.tif#frame=3`.
"""

import io
import logging
import os
import stat
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from ...errors import inform
from ...files.archive_members import parse_member, read_member
from ...files.caches import file_keys
from ...files.frame_names import FrameName, parse_frame_name
from .decoding import open_frames
from .frame_reader import Frames
from .image_error import ImageError
from .messages import ImageMessage
from .videos import VideoFrames

logger = logging.getLogger(__name__)

ImageSource: TypeAlias = "str | os.PathLike | bytes | dict[str, Any]"


def read_rgb(source: ImageSource, draft_size: tuple[int, int] | None = None) -> Image.Image:
    """Decodes an image into upright 8-bit RGB.

    Args:
        source: a file, a member of an archive, a frame (see `FrameName`), encoded bytes, or a row of an undecoded
            column (`{"bytes", "path"}`).
        draft_size: decode a JPEG at a fraction of its size, at least this one (see `Image.draft`).

    Raises:
        ImageError: If it cannot be read, or has several frames.
        FileNotFoundError: If the file does not exist.
    """
    source, frame = split_frame_name(source)
    if frame is None:
        with open_single_image(source) as frames:
            return frames.read(0, draft_size)
    if not isinstance(source, dict):
        name = str(source)
        shared = _open_shared(name, *file_keys([name]))
        return shared.read(_frame_index(shared, frame), draft_size)
    with open_image(source) as frames:
        return frames.read(_frame_index(frames, frame), draft_size)


@lru_cache(maxsize=4)
def _open_shared(name: str, *state: str) -> Frames | VideoFrames:
    """Opens a file with several frames, so that reading one frame after another is fast; a changed `state` opens it
    again. It is closed when it leaves the cache and is not in use."""
    return _open_image_or_video(name)


def _open_image_or_video(source: ImageSource) -> Frames | VideoFrames:
    try:
        return open_image(source)
    except ImageError as error:
        if error.code is not ImageMessage.VIDEO_IS_NOT_AN_IMAGE:
            raise
        return VideoFrames(str(source))


if hasattr(os, "register_at_fork"):
    # A DataLoader worker needs its own position in the file. It cannot close a video, because the threads of the
    # decoder do not exist in the forked process.
    os.register_at_fork(before=_open_shared.cache_clear)


def count_frames(source: ImageSource) -> int:
    """Counts the frames of an image or video (see `read_rgb`).

    Raises:
        ImageError: If it cannot be read.
        FileNotFoundError: If the file does not exist.
    """
    source, frame = split_frame_name(source)
    if frame is not None:
        return 1
    frames = _open_image_or_video(source)
    if isinstance(frames, Frames):
        frames.close()
    return frames.num_frames


def open_single_image(source: ImageSource) -> Frames:
    """Opens an image like `open_image`.

    Raises:
        ImageError: Also if it has several frames.
    """
    frames = open_image(source)
    if frames.num_frames > 1:
        frames.close()
        raise ImageError(ImageMessage.SEVERAL_FRAMES, count=frames.num_frames)
    return frames


def open_image(source: ImageSource) -> Frames:
    """Opens the frames of an image (see `read_rgb`) without decoding them; the caller closes them.

    Raises:
        ImageError: If it is not a regular file, its format is not supported, or it has more pixels than `max_pixels()`.
        FileNotFoundError: If the file does not exist.
    """
    if isinstance(source, dict):
        source = source.get("bytes") or source["path"]
    name = "" if isinstance(source, bytes) else str(source)
    if (member := parse_member(name)) is not None:
        source = read_member(member)
    try:
        if isinstance(source, bytes):
            frames = open_frames(source)
        else:
            check_regular_file(name)
            frames = open_frames(name)
    except ImageError as error:
        if error.code is ImageMessage.VIDEO_IS_NOT_AN_IMAGE and isinstance(source, bytes):
            raise ImageError(ImageMessage.VIDEO_IN_ARCHIVE) from None
        raise
    if frames.num_previews:
        inform(logger, ImageMessage.PREVIEWS_SKIPPED, file=name or "An image", count=frames.num_previews)
    return frames


def split_frame_name(source: ImageSource) -> "tuple[ImageSource, FrameName | None]":
    """Returns the file of a frame, and the frame; a source that is not a frame is returned unchanged."""
    if isinstance(source, dict) and not source.get("bytes"):
        source = str(source["path"])
    if isinstance(source, bytes):
        return source, None
    if isinstance(source, dict):
        frame = parse_frame_name(source.get("path") or "")
        return (source if frame is None else source | {"path": frame.file}), frame
    frame = parse_frame_name(os.fspath(source))
    return (source, None) if frame is None else (frame.file, frame)


def _frame_index(frames: Frames | VideoFrames, frame: FrameName) -> int:
    """Returns the number of a frame; for a time, that of the frame with the nearest start."""
    if frame.index is not None:
        return frame.index
    if frames.times is None or frame.seconds is None:
        raise ImageError(ImageMessage.NO_FRAME_TIMES)
    return int(np.argmin(np.abs(np.asarray(frames.times) - frame.seconds)))


def check_regular_file(path: str) -> None:
    """Raises `ImageError` for a folder, a pipe or a device, because reading from it could block."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ImageError(ImageMessage.NOT_REGULAR_FILE)


def encoded_bytes(encoded: dict[str, Any]) -> bytes:
    """Reads the encoded bytes of an image of an undecoded column, `{"bytes", "path"}`; those of a frame are PNG."""
    if split_frame_name(encoded)[1] is not None:
        buffer = io.BytesIO()
        read_rgb(encoded).save(buffer, "PNG")
        return buffer.getvalue()
    if encoded.get("bytes"):
        return bytes(encoded["bytes"])
    path = encoded["path"]
    if (member := parse_member(path)) is not None:
        return read_member(member)
    check_regular_file(path)
    with open(path, "rb") as file:
        return file.read()
