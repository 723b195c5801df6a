"""The one exception that a user's mistake raises here: its message is a sentence that says what to do."""

from hf_mae.errors import UsageError


class ConversionError(UsageError):
    """A checkpoint that cannot be read, is not this architecture, or cannot be written where it was asked for."""
