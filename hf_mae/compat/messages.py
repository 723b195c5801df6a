"""Messages of library versions: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class CompatMessage(Message):
    """Errors and warnings of the installed libraries."""
