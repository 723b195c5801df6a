"""Messages of settings: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class SettingsMessage(Message):
    """Errors and warnings of flags, recipes and settings."""
