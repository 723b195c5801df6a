"""`convert`: MAE checkpoint -> transformers weights."""

from ..compat.accelerate import skip_deepspeed_import
from ..conversion import ConversionReport, convert_checkpoint
from ..models.model_zoo import resolve_checkpoint
from ..settings.parse import Settings
from .command import command


@command("convert")
def convert(settings: Settings) -> ConversionReport:
    """Converts a checkpoint.

    Returns:
        The report of the conversion.
    """
    options = vars(settings.options).copy()
    source = resolve_checkpoint(options.pop("model_name_or_path"))
    with skip_deepspeed_import():
        return convert_checkpoint(source, options.pop("output_dir"), **options)
