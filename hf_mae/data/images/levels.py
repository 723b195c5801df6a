"""Grey levels and colours of more than 8 bits -> 8 bits, by the range that the file declares.

The brightest level of a file is the one that its header declares (bits per sample, `sBIT`, the maximum of a PNM file,
`BitsStored` of DICOM), never the brightest pixel. A header that declares 16 or 32 bits does not say how many of them
the camera uses, so the smallest of `BIT_DEPTHS` that contains all levels counts.
"""

import numpy as np

from .image_error import ImageError
from .messages import ImageMessage

BIT_DEPTHS = (8, 10, 12, 14, 16)  # of cameras and detectors


def scale_to_uint8(levels: np.ndarray, low: float = 0, high: float | None = None) -> np.ndarray:
    """Scales levels to uint8, linearly and clipped at both ends.

    Args:
        levels: any shape and any type of numbers.
        low, high: the levels that are black and white. Without `high`, white is 1 for fractions between 0 and 1, and
            the smallest of `BIT_DEPTHS` for integers.

    Raises:
        ImageError: If a level is NaN or infinite. Without `high`, also if levels are negative, larger than 16 bits, or
            other fractions, because it is unknown which of them are black and white.
    """
    if high is None and levels.dtype == np.uint8:
        return levels
    numbers = levels.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ImageError(ImageMessage.NON_FINITE_LEVELS)
    if high is None:
        high = _brightest_level(numbers, levels.dtype)
    return np.rint(255 * np.clip((numbers - low) / ((high - low) or 1), 0, 1)).astype(np.uint8)


def _brightest_level(numbers: np.ndarray, dtype: np.dtype) -> float:
    """Returns the level that is white, by the type of the levels."""
    lowest, highest = float(numbers.min(initial=0)), float(numbers.max(initial=0))
    if lowest >= 0 and highest <= 1 and np.issubdtype(dtype, np.floating):
        return 1
    white = white_of_depth(highest)
    if lowest < 0 or white is None or (numbers % 1).any():
        raise ImageError(ImageMessage.UNKNOWN_RANGE_OF_LEVELS, low=f"{lowest:g}", high=f"{highest:g}")
    return white


def white_of_depth(level: float) -> float | None:
    """Returns the largest level of the smallest of `BIT_DEPTHS` that contains a level; None if it is too large."""
    return next((2.0**bits - 1 for bits in BIT_DEPTHS if level < 2**bits), None)
