"""`export`: transformers weights -> a reference checkpoint."""

from typing import Any

from ..conversion import export_checkpoint
from ..conversion.architecture import Architecture
from ..settings.fill import fill


def export(**flags: Any) -> Architecture:
    """Writes a reference checkpoint; `flags` are those of `hf-mae export`. Returns the sizes of the model."""
    (options,) = fill("export", None, **flags).parts
    return export_checkpoint(options.source, options.destination, overwrite=options.overwrite)
