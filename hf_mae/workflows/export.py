"""`export`: transformers weights -> a reference checkpoint, or a timm folder."""

from typing import Any

from ..conversion import export_checkpoint
from ..conversion.export import Exported
from ..settings.fill import fill


def export(**flags: Any) -> Exported:
    """Writes a reference checkpoint or a timm folder; `flags` are those of `hf-mae export`. Returns the sizes of the
    model, and how timm's `validate.py` evaluates it."""
    (options,) = fill("export", None, **flags).parts
    return export_checkpoint(options.source, options.destination, to=options.to, overwrite=options.overwrite)
