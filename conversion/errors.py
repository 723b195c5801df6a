"""The exception of the checkpoint conversion."""

from hf_mae.errors import UsageError


class ConversionError(UsageError):
    """A checkpoint cannot be read, has an unsupported architecture, or cannot be written to its destination."""
