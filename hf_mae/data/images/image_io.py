"""Reading of images: files and encoded bytes -> upright 8-bit RGB. All code that reads images uses this module.

Only `FORMATS` are opened, independent of the suffix; none of them starts another program (as PostScript does). DICOM
and HEIC require the packages of the extra `formats`.

Grey levels of more than 8 bits are scaled to 8 bits by a monotonic rule that depends on the image alone
(`scale_to_uint8`). An alpha channel is dropped; the colours of transparent pixels stay.
"""

import io
import os
import stat
import warnings
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ...files.archive_members import parse_member, read_member
from ...settings.data import MAX_PIXELS, MAX_PIXELS_ENV
from .messages import ImageMessage

warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `check_pixel_count` raises instead

FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000")
HEIC_SUFFIXES, DICOM_SUFFIXES = (".heic", ".heif"), (".dcm", ".dicom")
BIT_DEPTHS = (8, 10, 12, 14, 16)  # of cameras and detectors


class ImageError(OSError):
    """An image cannot be read. The message is the reason, without the file name.

    Args:
        message: a member of the catalogue; text only if another library rendered it.
        attributes: values of the fields of the message.
    """

    def __init__(self, message: ImageMessage | str, **attributes: Any):
        self.code = message if isinstance(message, ImageMessage) else None
        self.attributes = attributes
        super().__init__(message.render(**attributes) if isinstance(message, ImageMessage) else message)


def open_image(source: str | os.PathLike | bytes) -> Image.Image:
    """Opens an image (a file, a member of an archive, or encoded bytes) without decoding it.

    Raises:
        ImageError: If it is not a regular file, its format is not supported, or it has more pixels than `max_pixels()`.
        FileNotFoundError: If the file does not exist.
    """
    if isinstance(source, bytes):
        return _check_size(_open_with_pillow(io.BytesIO(source)))
    path = os.fspath(source)
    if (member := parse_member(path)) is not None:
        return open_image(read_member(member))
    check_regular_file(path)
    if path.lower().endswith(DICOM_SUFFIXES):
        return _check_size(_read_dicom(path))
    return _check_size(_open_with_pillow(path))


def check_regular_file(path: str) -> None:
    """Raises `ImageError` for a folder, a pipe or a device, because reading from it could block."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ImageError(ImageMessage.NOT_REGULAR_FILE)


def max_pixels() -> int:
    """Returns the maximum number of pixels of an image: from the environment (`--max_pixels`), or `MAX_PIXELS`."""
    value = os.environ.get(MAX_PIXELS_ENV, "")
    return int(value) if value.isdecimal() else MAX_PIXELS


def check_pixel_count(width: int, height: int) -> None:
    """Raises `ImageError` for an image that is larger than `max_pixels()`."""
    if width * height > max_pixels():
        raise ImageError(ImageMessage.TOO_MANY_PIXELS, width=width, height=height, limit=max_pixels())


def encoded_bytes(encoded: dict[str, Any]) -> bytes:
    """Reads the encoded bytes of an image of an undecoded column: `{"bytes", "path"}`."""
    if encoded.get("bytes"):
        return bytes(encoded["bytes"])
    path = encoded["path"]
    if (member := parse_member(path)) is not None:
        return read_member(member)
    check_regular_file(path)
    with open(path, "rb") as file:
        return file.read()


def open_encoded(encoded: dict[str, Any]) -> Image.Image:
    """Opens an image of an undecoded column: `{"bytes", "path"}`."""
    return open_image(encoded["bytes"] or encoded["path"] if "bytes" in encoded else encoded["path"])


def _open_with_pillow(source: Any) -> Image.Image:
    formats: tuple[str, ...] = FORMATS
    if isinstance(source, str) and source.lower().endswith(HEIC_SUFFIXES):
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            raise ImageError(ImageMessage.HEIC_REQUIRES_PACKAGE) from None
        register_heif_opener()
        formats = ("HEIF",)
    if max_pixels() > MAX_PIXELS:
        Image.MAX_IMAGE_PIXELS = None  # the user raised the limit; `check_pixel_count` applies it
    try:
        return Image.open(source, formats=formats)
    except UnidentifiedImageError:
        if isinstance(source, str):
            raise
        raise ImageError(ImageMessage.UNSUPPORTED_FORMAT) from None  # Pillow's message has the address of the buffer
    except Image.DecompressionBombError:
        raise ImageError(ImageMessage.PIXEL_LIMIT_EXCEEDED, limit=max_pixels()) from None


def _read_dicom(path: str) -> Image.Image:
    """Reads the first frame of a DICOM file, with the modality and VOI lookup tables applied."""
    try:
        from pydicom import dcmread
        from pydicom.pixels import apply_modality_lut, apply_voi_lut
    except ImportError:
        raise ImageError(ImageMessage.DICOM_REQUIRES_PACKAGE) from None
    try:
        dataset = dcmread(path)
        check_pixel_count(int(dataset.get("Columns", 0)), int(dataset.get("Rows", 0)))
        pixels = dataset.pixel_array
        num_frames = int(dataset.get("NumberOfFrames", 1) or 1)
        pixels = pixels[0] if num_frames > 1 else pixels
        if pixels.ndim == 2:
            pixels = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset)
            if dataset.get("PhotometricInterpretation") == "MONOCHROME1":  # white is 0
                pixels = pixels.max() - pixels
    except Exception as error:  # each decoder of pydicom raises its own types
        raise ImageError(summarize_image_error(error, path)) from None
    if pixels.ndim == 2:
        return Image.fromarray(scale_to_uint8(pixels))
    return Image.fromarray(pixels if pixels.dtype == np.uint8 else scale_to_uint8(pixels))


def _check_size(image: Image.Image) -> Image.Image:
    check_pixel_count(image.width, image.height)
    return image


def read_rgb(source: str | os.PathLike | bytes | dict[str, Any]) -> Image.Image:
    """Decodes a file, encoded bytes, or a row of an undecoded column into upright RGB."""
    with open_encoded(source) if isinstance(source, dict) else open_image(source) as image:
        return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts an image (grey, palette, RGBA, CMYK, EXIF rotation) to upright 8-bit RGB, like transformers'
    `load_image` for `pipeline()`.

    Levels of more than 8 bits are scaled by `scale_to_uint8`; `pipeline()` clips them at 255. An upright RGB image is
    returned without a copy: copying in Pillow takes as long as decoding a JPEG.
    """
    image.load()
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB":
        return image
    return to_eight_bits(image).convert("RGB")


def has_high_bit_depth(image: Image.Image) -> bool:
    """Whether an image has grey levels of more than 8 bits, or floating-point levels."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Converts an image to 8 bits per channel; returns it unchanged if it has 8 bits."""
    return Image.fromarray(scale_to_uint8(np.asarray(image))) if has_high_bit_depth(image) else image


def scale_to_uint8(levels: np.ndarray) -> np.ndarray:
    """Scales levels of any range to uint8, monotonically.

    Integers are scaled by the smallest of `BIT_DEPTHS` that contains their maximum, so that images of one detector are
    scaled equally; above 16 bits they are scaled by their maximum. Fractions between 0 and 1 are scaled by 1. Levels
    with negative numbers, or other fractions, are scaled from their minimum to their maximum.

    Raises:
        ImageError: If a level is NaN or infinite.
    """
    numbers = levels.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ImageError(ImageMessage.NON_FINITE_LEVELS)
    low, high = float(numbers.min()), float(numbers.max())
    integral = np.issubdtype(levels.dtype, np.integer) or not (numbers % 1).any()
    if low < 0 or (not integral and high > 1):
        span = (high - low) or 1.0
        numbers = (numbers - low) / span
    elif integral and not (high <= 1 and np.issubdtype(levels.dtype, np.floating)):
        numbers = numbers / next((2**bits - 1 for bits in BIT_DEPTHS if high < 2**bits), high)
    return np.rint(255 * numbers).astype(np.uint8)


def summarize_image_error(error: Exception, path: str = "") -> str:
    """Returns the reason in an error of Pillow, without the file name (if `path` is given)."""
    text = " ".join((str(error).replace(path, "") if path else str(error)).split())
    if "cannot identify image file" in text:
        return ImageMessage.UNSUPPORTED_FORMAT.render()
    return text or type(error).__name__
