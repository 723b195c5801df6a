"""Pages of TIFF files: their headers, and their levels of more than 8 bits."""

import json
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from .image_error import ImageError
from .levels import white_of_depth
from .messages import ImageMessage

MAX_PAGES = 1_000_000
REDUCED, MASK = 1, 4  # bits of NewSubfileType
WIDTH, HEIGHT, BITS, PHOTOMETRIC, ORIENTATION = 256, 257, 258, 262, 274  # tags
NEW_SUBFILE_TYPE, SUBFILE_TYPE, SUB_IFDS, SAMPLES, SAMPLE_FORMAT = 254, 255, 330, 277, 339
MIN_SAMPLE, MAX_SAMPLE, SMIN_SAMPLE, SMAX_SAMPLE, DESCRIPTION, IMAGE_DEPTH = 280, 281, 340, 341, 270, 32997
RANGE_TAGS = ((SMIN_SAMPLE, MIN_SAMPLE), (SMAX_SAMPLE, MAX_SAMPLE))
READ_TAGS = {
    *(WIDTH, HEIGHT, BITS, PHOTOMETRIC, ORIENTATION, NEW_SUBFILE_TYPE, SUBFILE_TYPE, SUB_IFDS, SAMPLES),
    *(SAMPLE_FORMAT, MIN_SAMPLE, MAX_SAMPLE, SMIN_SAMPLE, SMAX_SAMPLE, DESCRIPTION, IMAGE_DEPTH),
}
FIELD_TYPES = dict(zip((1, 2, 3, 4, 6, 8, 9, 11, 12, 13, 16, 17, 18), "BBHIbhifdIQqQ"))
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
MAX_VALUES = 256  # of a tag that are read


@dataclass(frozen=True)
class TiffPage:
    """Header of a page.

    Args:
        number: number in the chain of pages, from 0.
        tags: values of `READ_TAGS`.
        counts: number of values of these tags.
    """

    number: int
    tags: dict[int, tuple]
    counts: dict[int, int]

    def get(self, tag: int, default: Any) -> Any:
        """Returns the first value of a tag."""
        return self.tags.get(tag, (default,))[0]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return int(self.get(WIDTH, 0)), int(self.get(HEIGHT, 0))

    @property
    def bits(self) -> int:
        """Bits per sample, the most of all samples."""
        return int(max(self.tags.get(BITS, (1,))))

    @property
    def orientation(self) -> int:
        """Orientation as in EXIF."""
        return int(self.get(ORIENTATION, 1))

    @property
    def is_preview(self) -> bool:
        """Whether the page is a reduced version of another one, or a mask."""
        return bool(self.get(NEW_SUBFILE_TYPE, 0) & (REDUCED | MASK)) or self.get(SUBFILE_TYPE, 1) == 2

    @property
    def num_subpages(self) -> int:
        """Number of pages below this one: previews."""
        return self.counts.get(SUB_IFDS, 0)

    def declared_images(self, file_size: int) -> int:
        """Returns the number of images behind this page, as ImageJ, tifffile or the depth of the page declare it.

        Writers of large stacks store one header, and all images behind it. Other programs see only the first image. A
        description that was copied from another file is ignored: `file_size` (bytes) is too small for its images.
        """
        samples = max(math.prod(self.size) * int(self.get(SAMPLES, 1)), 1)
        count = self._described_images(samples)
        return count if 8 * file_size >= count * samples * self.bits else int(self.get(IMAGE_DEPTH, 1))

    def _described_images(self, samples: int) -> int:
        text = bytes(self.tags.get(DESCRIPTION, ())).decode("latin-1").rstrip("\0")
        if (match := re.match(r"ImageJ=.*?^images=(\d+)", text, re.DOTALL | re.MULTILINE)) is not None:
            return int(match[1])
        if text.startswith('{"shape": [') and '"truncated": true' in text:
            return math.prod(json.loads(text)["shape"]) // samples
        return int(self.get(IMAGE_DEPTH, 1))

    def declared_range(self) -> tuple[float, float | None]:
        """Returns the levels that are black and white, as the header declares them; None: it does not.

        The maximum of a file (`MaxSampleValue`) is that of its pixels, not white. It only decides how many of 16 bits
        are used.
        """
        low, high = (self.tags.get(signed) or self.tags.get(tag) for signed, tag in RANGE_TAGS)
        if self.get(SAMPLE_FORMAT, 1) != 1:
            return (float(min(low)) if low else 0.0), (float(max(high)) if high else None)
        if self.bits not in (16, 32, 64):
            return 0.0, 2.0**self.bits - 1
        return 0.0, float(white_of_depth(max(high)) or max(high)) if high else None


def read_tiff_pages(file: IO[bytes]) -> list[TiffPage]:
    """Reads the headers of all pages, of TIFF and BigTIFF.

    Raises:
        ImageError: If the file contains no page, or the chain of pages is damaged.
    """
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    is_big = 43 in head[2:4]
    try:
        offset = struct.unpack_from(order + ("Q" if is_big else "I"), head, 8 if is_big else 4)[0]
        pages = list(_iter_pages(file, order, is_big, offset))
    except struct.error:
        raise ImageError(ImageMessage.TRUNCATED_FILE) from None
    if not pages:
        raise ImageError(ImageMessage.DAMAGED_FILE)
    return pages


def _iter_pages(file: IO[bytes], order: str, is_big: bool, offset: int) -> Iterator[TiffPage]:
    seen: set[int] = set()
    while offset:
        if offset in seen or len(seen) >= MAX_PAGES:
            raise ImageError(ImageMessage.DAMAGED_FILE)
        seen.add(offset)
        file.seek(offset)
        (count,) = struct.unpack(order + ("Q" if is_big else "H"), file.read(8 if is_big else 2))
        size = 20 if is_big else 12
        entries = file.read(min(count, 65535) * size + (8 if is_big else 4))
        tags, counts = {}, {}
        for start in range(0, min(count, 65535) * size, size):
            tag, kind = struct.unpack_from(order + "HH", entries, start)
            if tag in READ_TAGS and kind in FIELD_TYPES:
                counts[tag], values = _read_values(file, order, is_big, entries, start, FIELD_TYPES[kind])
                if values:
                    tags[tag] = values
        yield TiffPage(len(seen) - 1, tags, counts)
        offset = struct.unpack_from(order + ("Q" if is_big else "I"), entries, min(count, 65535) * size)[0]


def _read_values(
    file: IO[bytes], order: str, is_big: bool, entries: bytes, start: int, letter: str
) -> tuple[int, tuple[float, ...]]:
    """Reads the values of a tag, from the entry or from where it points."""
    (count,) = struct.unpack_from(order + ("Q" if is_big else "I"), entries, start + 4)
    layout = f"{order}{min(count, MAX_VALUES)}{letter}"
    field = start + (12 if is_big else 8)
    if count * struct.calcsize(letter) <= (8 if is_big else 4):
        return count, struct.unpack_from(layout, entries, field)
    file.seek(struct.unpack_from(order + ("Q" if is_big else "I"), entries, field)[0])
    return count, struct.unpack(layout, file.read(struct.calcsize(layout)))


def read_tiff_levels(file: IO[bytes], page: TiffPage) -> tuple[np.ndarray, float, float | None]:
    """Decodes a page that Pillow cannot read without loss.

    Returns:
        Levels (height, width) or (height, width, 3), and the levels that are black and white (None: not declared).

    Raises:
        ImageError: If its colours or its compression are not supported.
    """
    try:
        from tifffile import TiffFile
    except ImportError:
        raise ImageError(ImageMessage.DEEP_COLOURS_REQUIRE_PACKAGE) from None
    file.seek(0)
    photometric = page.get(PHOTOMETRIC, BLACK_IS_ZERO)
    if photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
        raise ImageError(ImageMessage.UNSUPPORTED_TIFF)
    try:
        with TiffFile(_Unclosed(file)) as tiff:
            levels = tiff.pages[page.number].asarray()
            axes = tiff.pages[page.number].axes
    except ValueError as error:
        if "imagecodecs" in str(error):
            raise ImageError(ImageMessage.TIFF_REQUIRES_PACKAGE) from None
        raise
    if axes == "SYX":
        levels = np.moveaxis(levels, 0, -1)
    elif axes not in ("YX", "YXS"):
        raise ImageError(ImageMessage.UNSUPPORTED_TIFF)
    if levels.ndim == 3:
        levels = levels[..., :3] if photometric == RGB else levels[..., 0]
    return interpret_tiff_levels(levels, page)


def interpret_tiff_levels(levels: np.ndarray, page: TiffPage) -> tuple[np.ndarray, float, float | None]:
    """Returns levels that increase with brightness, and those that are black and white (None: not declared)."""
    low, high = page.declared_range()
    if high is not None and np.issubdtype(levels.dtype, np.unsignedinteger) and levels.max(initial=0) > high:
        high = None  # the header was copied from another file
    if page.get(PHOTOMETRIC, BLACK_IS_ZERO) != WHITE_IS_ZERO:
        return levels, low, high
    if not np.issubdtype(levels.dtype, np.unsignedinteger):
        raise ImageError(ImageMessage.UNSUPPORTED_TIFF)
    white = float(2**page.bits - 1) if high is None else high
    return low + white - levels.astype(np.float64), low, white


class _Unclosed:
    """A file that stays open when its reader closes it."""

    def __init__(self, file: IO[bytes]):
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        """Does nothing."""
