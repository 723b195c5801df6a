"""Messages of the evaluation: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class EvaluationMessage(Message):
    """Errors and warnings of metrics, calibration, conformal prediction and statistics."""
