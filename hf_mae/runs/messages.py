"""Messages of runs: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class RunMessage(Message):
    """Errors and warnings of output folders, records and predictions."""
