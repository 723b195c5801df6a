"""`export`: transformers weights -> checkpoint in the original MAE format, or timm folder."""

from typing import Any

from ..conversion import export_checkpoint
from ..conversion.export import ExportResult
from ..settings.parse import parse_settings


def export(**flags: Any) -> ExportResult:
    """Exports a model.

    Args:
        flags: the flags of `hf-mae export`.

    Returns:
        The sizes of the model, and the command that evaluates it with timm.
    """
    (options,) = parse_settings("export", None, **flags).arguments
    return export_checkpoint(options.model_name_or_path, options.output, to=options.to, overwrite=options.overwrite)
