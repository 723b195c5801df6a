"""`convert`: MAE checkpoint -> transformers weights."""

from pathlib import Path

from ..compat.accelerate import skip_deepspeed_import
from ..conversion import ConversionReport, convert_checkpoint
from ..files.atomic import write_text
from ..models.model_zoo import resolve_checkpoint
from ..reporting.model_card import licence_head
from ..runs.run_licences import licence_of_exported
from ..settings.parse import Settings
from .command import command


@command("convert")
def convert(settings: Settings) -> ConversionReport:
    """Converts a checkpoint.

    Returns:
        The report of the conversion.
    """
    options = vars(settings.options).copy()
    name, folder = str(options.pop("model_name_or_path")), options.pop("output_dir")
    licence = licence_of_exported([name])
    with skip_deepspeed_import():
        report = convert_checkpoint(resolve_checkpoint(name), folder, **options)
    if licence:
        write_text(Path(folder) / "README.md", licence_head(licence))
    return report
