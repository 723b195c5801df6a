"""The reason why an image cannot be read: the same for all commands and code paths."""

from typing import Any

from ...errors import UsageError
from .messages import ImageMessage

PILLOW_REASONS = {  # part of an error text of Pillow, in lower case -> reason
    "cannot identify image file": ImageMessage.DAMAGED_FILE,
    "truncated": ImageMessage.TRUNCATED_FILE,
    "broken data stream": ImageMessage.DAMAGED_FILE,
    "unrecognized data stream": ImageMessage.DAMAGED_FILE,
}


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


UNCONVERTED_ERRORS = (ImageError, FileNotFoundError, PermissionError, MemoryError)


def convert_decoder_error(error: Exception) -> ImageError:
    """Converts an exception of a decoder (each has its own types)."""
    text = " ".join(str(error).split())
    code = next((code for part, code in PILLOW_REASONS.items() if part in text.lower()), None)
    if code is None and isinstance(error, (EOFError, IndexError)):
        code = ImageMessage.TRUNCATED_FILE
    return ImageError(code or text or type(error).__name__)


def summarize_image_error(error: Exception, path: str = "") -> str:
    """Returns the reason in an error, on one line, without the file name (if `path` is given).

    Raises:
        UsageError: If the error is not about this image, e.g. because its archive has changed on the server.
    """
    if isinstance(error, UsageError):
        raise error
    if isinstance(error, FileNotFoundError):
        return ImageMessage.MISSING_FILE.render()
    text = str(error)
    return " ".join((text.replace(path, "the file") if path else text).split()) or type(error).__name__
