"""Messages of the command line: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class CliMessage(Message):
    """Errors of the command line."""
