"""Messages of models: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class ModelMessage(Message):
    """Errors and warnings of building, loading and combining models."""
