"""Base of the readers of image files: frame by frame, as upright 8-bit RGB."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import IO

from PIL import Image

from ...settings.limits import max_pixels
from .image_error import UNCONVERTED_ERRORS, ImageError, convert_decoder_error
from .messages import ImageMessage


def check_pixel_count(width: int, height: int) -> None:
    """Raises `ImageError` for an image that is larger than `max_pixels()`."""
    if width * height > (limit := max_pixels()):
        raise ImageError(ImageMessage.TOO_MANY_PIXELS, width=width, height=height, limit=limit)


class Frames(ABC):
    """The frames of an open file. Threads may share it: a decoder reads one frame at a time.

    Attributes:
        size: width and height in pixels (of the largest frame).
        num_frames: number of frames, without previews.
        num_previews: number of previews and thumbnails, which are not read.
        times: start of each frame in seconds; None if the file does not contain it.
    """

    size = (0, 0)
    num_frames = 1
    num_previews = 0
    times: Sequence[float] | None = None

    def __init__(self, file: IO[bytes]):
        self.file, self._lock = file, threading.Lock()

    def read(self, index: int = 0, draft_size: tuple[int, int] | None = None) -> Image.Image:
        """Decodes a frame into upright 8-bit RGB.

        Args:
            index: number of the frame, from 0.
            draft_size: decode a JPEG at a fraction of its size, at least this one (see `Image.draft`).

        Raises:
            ImageError: If the frame cannot be decoded, or does not exist.
        """
        if not 0 <= index < self.num_frames:
            raise ImageError(ImageMessage.NO_SUCH_FRAME, index=index, count=self.num_frames)
        try:
            with self._lock:
                return self._decode(index, draft_size)
        except UNCONVERTED_ERRORS:
            raise
        except Exception as error:
            raise convert_decoder_error(error) from error

    @abstractmethod
    def _decode(self, index: int, draft_size: tuple[int, int] | None) -> Image.Image: ...

    def close(self) -> None:
        """Closes the file."""
        self.file.close()

    def __enter__(self) -> "Frames":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
