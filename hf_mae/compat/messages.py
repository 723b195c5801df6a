"""Messages of library versions: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class CompatMessage(Message):
    """Errors and warnings of the installed libraries."""

    TIMM_TOO_OLD = (
        "timm models require timm {required} or newer (installed: {installed}), because older versions lose parameters "
        "when a model is loaded again. Run pip install -U timm."
    )
