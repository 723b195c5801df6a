"""Opening images: files and encoded bytes -> upright 8-bit RGB. Everything that reads an image goes through here.

A file may be of `FORMATS` and nothing else, whatever it is called: no format that starts another program (PostScript)
is among them. DICOM and HEIC are read where their packages are installed (the extra `formats`).

Grey levels of more than 8 bits become 8 by a rule that keeps their order and depends on the image alone
(`to_eight_bits`); an alpha channel is left out, and the colours beneath it stay.
"""

import io
import os
import stat
import warnings
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ..files.archive_members import parse_member, read_member
from ..settings.data import MAX_PIXELS, MAX_PIXELS_ENV

warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `refuse_too_many_pixels` says it in a sentence

FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000")
HEIC_SUFFIXES, DICOM_SUFFIXES = (".heic", ".heif"), (".dcm", ".dicom")
BIT_DEPTHS = (8, 10, 12, 14, 16)  # of cameras and detectors


class ImageError(OSError):
    """An image that cannot be read; its message says why, without the file's name."""


def open_image(source: str | os.PathLike | bytes) -> Image.Image:
    """An image file (or a member of an archive), or its bytes, opened and not yet decoded.

    Raises:
        ImageError: it is no regular file, of no format that is read, or has more pixels than `max_pixels()`;
        FileNotFoundError.
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
    """Raises `ImageError` for a folder, a pipe or a device, which would be waited for."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ImageError("it is no regular file")


def max_pixels() -> int:
    """The largest number of pixels that is decoded: of the environment (`--max_pixels`), or `MAX_PIXELS`."""
    asked = os.environ.get(MAX_PIXELS_ENV, "")
    return int(asked) if asked.isdecimal() else MAX_PIXELS


def check_pixel_count(width: int, height: int) -> None:
    """Raises `ImageError` for an image that is larger than `max_pixels()`."""
    if width * height > max_pixels():
        raise ImageError(f"it has {width} x {height} pixels, more than {max_pixels():,}: --max_pixels raises that")


def encoded_bytes(encoded: dict[str, Any]) -> bytes:
    """What an image file holds, of an undecoded column: `{"bytes", "path"}`."""
    if encoded.get("bytes"):
        return bytes(encoded["bytes"])
    path = encoded["path"]
    if (member := parse_member(path)) is not None:
        return read_member(member)
    check_regular_file(path)
    with open(path, "rb") as file:
        return file.read()


def open_encoded(encoded: dict[str, Any]) -> Image.Image:
    """An image of an undecoded column: `{"bytes", "path"}`."""
    return open_image(encoded["bytes"] or encoded["path"] if "bytes" in encoded else encoded["path"])


def _open_with_pillow(source: Any) -> Image.Image:
    formats: tuple[str, ...] = FORMATS
    if isinstance(source, str) and source.lower().endswith(HEIC_SUFFIXES):
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            raise ImageError("HEIC is read with pillow-heif: pip install 'hf_mae[formats]'") from None
        register_heif_opener()
        formats = ("HEIF",)
    if max_pixels() > MAX_PIXELS:
        Image.MAX_IMAGE_PIXELS = None  # a person has raised the bound, which is ours from here on
    try:
        return Image.open(source, formats=formats)
    except UnidentifiedImageError:
        if isinstance(source, str):
            raise
        raise ImageError("it is no image of a format that is read") from None  # Pillow would name a buffer's address
    except Image.DecompressionBombError:
        raise ImageError(f"it has more than {max_pixels():,} pixels: --max_pixels raises that") from None


def _read_dicom(path: str) -> Image.Image:
    """The (first) picture of a DICOM file, with its window or modality's values as grey levels."""
    try:
        from pydicom import dcmread
        from pydicom.pixels import apply_modality_lut, apply_voi_lut
    except ImportError:
        raise ImageError("DICOM is read with pydicom: pip install 'hf_mae[formats]'") from None
    try:
        dataset = dcmread(path)
        check_pixel_count(int(dataset.get("Columns", 0)), int(dataset.get("Rows", 0)))
        pixels = dataset.pixel_array
        frames = int(dataset.get("NumberOfFrames", 1) or 1)
        pixels = pixels[0] if frames > 1 else pixels
        if pixels.ndim == 2:
            pixels = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset)
            if dataset.get("PhotometricInterpretation") == "MONOCHROME1":  # white is 0
                pixels = pixels.max() - pixels
    except Exception as error:  # pydicom raises whatever its decoders do
        raise ImageError(summarize_image_error(error, path)) from None
    if pixels.ndim == 2:
        return Image.fromarray(scale_to_uint8(pixels))
    return Image.fromarray(pixels if pixels.dtype == np.uint8 else scale_to_uint8(pixels))


def _check_size(image: Image.Image) -> Image.Image:
    check_pixel_count(image.width, image.height)
    return image


def read_rgb(source: str | os.PathLike | bytes | dict[str, Any]) -> Image.Image:
    """A file, bytes, or an undecoded row of a column, decoded: upright RGB."""
    with open_encoded(source) if isinstance(source, dict) else open_image(source) as image:
        return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Upright 8-bit RGB (from grey, palette, RGBA, CMYK, EXIF rotation), as transformers' `load_image` for
    `pipeline()`.

    More than 8 bits become 8 by `to_eight_bits`, where `pipeline()` cuts off what is above 255. An image that is so
    already is given back, not copied: Pillow's copies take as long as decoding a JPEG.
    """
    image.load()
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB":
        return image
    return to_eight_bits(image).convert("RGB")


def has_high_bit_depth(image: Image.Image) -> bool:
    """Whether an image has grey levels of more than 8 bits, or numbers for levels."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def to_eight_bits(image: Image.Image) -> Image.Image:
    """An image of 8 bits a channel; itself where it is one."""
    return Image.fromarray(scale_to_uint8(np.asarray(image))) if has_high_bit_depth(image) else image


def scale_to_uint8(levels: np.ndarray) -> np.ndarray:
    """Levels of any range as uint8, in their order.

    Whole numbers are taken for the levels of the smallest of `BIT_DEPTHS` that holds the largest of them, so that two
    images of one detector are scaled alike; beyond 16 bits by the largest. Fractions from 0 to 1 are taken for shares
    of white. What has negative numbers, or other fractions, is stretched from its smallest to its largest.

    Raises:
        ImageError: a level is not finite.
    """
    numbers = levels.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ImageError("it holds grey levels that are not finite")
    low, high = float(numbers.min()), float(numbers.max())
    whole = np.issubdtype(levels.dtype, np.integer) or not (numbers % 1).any()
    if low < 0 or (not whole and high > 1):
        span = (high - low) or 1.0
        numbers = (numbers - low) / span
    elif whole and not (high <= 1 and np.issubdtype(levels.dtype, np.floating)):
        numbers = numbers / next((2**bits - 1 for bits in BIT_DEPTHS if high < 2**bits), high)
    return np.rint(255 * numbers).astype(np.uint8)


def summarize_image_error(error: Exception, path: str = "") -> str:
    """What Pillow says of a file, without the file's name (where one is given)."""
    said = " ".join((str(error).replace(path, "") if path else str(error)).split())
    if "cannot identify image file" in said:
        return "it is no image of a format that is read"
    return said or type(error).__name__
