"""`export`: transformers weights -> checkpoint in the original MAE format, or timm folder."""

from ..conversion import export_checkpoint
from ..conversion.architecture import Architecture
from ..runs.run_licences import licence_of_exported
from ..settings.parse import Settings
from .command import command


@command("export")
def export(settings: Settings) -> Architecture:
    """Exports a model.

    Returns:
        The sizes of the model.
    """
    options = settings.options
    return export_checkpoint(
        options.model_name_or_path,
        options.output,
        to=options.to,
        overwrite=options.overwrite,
        licence=licence_of_exported([str(options.model_name_or_path)]),
    )
