"""Messages of files, locks and downloads: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class FileMessage(Message):
    """Errors and warnings of writing, locking, downloading and caching files."""
