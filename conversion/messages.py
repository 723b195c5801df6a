"""Messages of the checkpoint conversion: one member per cause and fix (see `hf_mae.errors.Message`)."""

from hf_mae.errors import Message


class ConversionMessage(Message):
    """Errors and warnings of reading, converting and exporting checkpoints."""
