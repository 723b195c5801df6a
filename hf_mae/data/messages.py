"""Messages of data sources: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class DataMessage(Message):
    """Errors and warnings of folders, manifests, archives, tables, benchmarks and splits."""
