"""Messages of publishing: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class SharingMessage(Message):
    """Errors and warnings of the Hub, ONNX, the demo and the Space."""
