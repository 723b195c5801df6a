"""Messages of the commands: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class WorkflowMessage(Message):
    """Errors and warnings of the commands."""
