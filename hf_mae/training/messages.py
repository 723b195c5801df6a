"""Messages of training: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class TrainingMessage(Message):
    """Errors and warnings of trainers, schedules, checkpoints and plans."""
