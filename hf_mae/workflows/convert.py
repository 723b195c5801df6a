"""`convert`: MAE checkpoint -> transformers weights."""

from ..compat.accelerate import skip_deepspeed_import
from ..conversion import ConversionReport, convert_checkpoint
from ..models.model_zoo import resolve_checkpoint
from ..settings.parse import Settings
from .command import command


@command("convert")
def convert(settings: Settings) -> ConversionReport:
    """Converts a checkpoint.

    Args:
        flags: the flags of `hf-mae convert`.

    Returns:
        The report of the conversion.
    """
    options = settings.options
    with skip_deepspeed_import():
        return convert_checkpoint(
            resolve_checkpoint(options.model_name_or_path),
            options.output_dir,
            to=options.to,
            pooling=options.pooling,
            num_labels=options.num_labels,
            labels=options.labels,
            image_size=options.image_size,
            num_attention_heads=options.num_attention_heads,
            decoder_num_attention_heads=options.decoder_num_attention_heads,
            norm_pix_loss=options.norm_pix_loss,
            weights=options.weights,
            processor=options.processor,
            verify=options.verify,
            overwrite=options.overwrite,
        )
