"""Opening images: files and encoded bytes -> upright RGB."""

import io
from typing import Any

from PIL import ExifTags, Image, ImageOps


def open_encoded(encoded: dict[str, Any]) -> Image.Image:
    """An image of an undecoded column: `{"bytes", "path"}`."""
    return Image.open(io.BytesIO(encoded["bytes"]) if encoded.get("bytes") else encoded["path"])


def to_rgb(image: Image.Image) -> Image.Image:
    """Upright RGB (from grey, palette, RGBA, CMYK, EXIF rotation), as transformers' `load_image` for `pipeline()`.

    An image that is so already is given back, not copied: Pillow's copies take as long as decoding a JPEG.
    """
    image.load()
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def reason_of(error: Exception, path: str = "") -> str:
    """What Pillow says of a file, without the file's name (where one is given)."""
    return " ".join(str(error).replace(path, "").split()) or type(error).__name__
