"""Messages of reports and figures: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class ReportingMessage(Message):
    """Errors and warnings of reports, figures, cards and checklists."""
