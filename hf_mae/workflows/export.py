"""`export`: transformers weights -> a reference checkpoint, or a timm folder."""

from typing import Any

from ..conversion import export_checkpoint
from ..conversion.export import ExportResult
from ..settings.parse import parse_settings


def export(**flags: Any) -> ExportResult:
    """Writes a reference checkpoint or a timm folder; `flags` are those of `hf-mae export`. Returns the sizes of the
    model, and how timm's `validate.py` evaluates it."""
    (options,) = parse_settings("export", None, **flags).arguments
    return export_checkpoint(options.source, options.destination, to=options.to, overwrite=options.overwrite)
