"""Messages of images, their cache and their checks: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class ImageMessage(Message):
    """Errors and warnings of image files, transforms, pixel caches, shards and duplicates."""
