"""Settings of `reconstruct`."""

from dataclasses import dataclass

from ..errors import UsageError
from .data import TRANSFORM_FAMILIES, ImageLimitsArguments
from .messages import SettingsMessage
from .models import DECODER_NUM_HEADS_HELP, NUM_HEADS_HELP
from .options import option

FIGURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass
class ReconstructionArguments(ImageLimitsArguments):
    """The masked autoencoder and the images to reconstruct."""

    images: list[str] | None = option(None, "Files, folders and globs.", show_in_help=True, metavar="IMAGES")
    model_name_or_path: str | None = option(
        None,
        "An MAE .pth file, a folder, a Hub id, or a name listed by hf-mae checkpoints.",
        show_in_help=True,
        aliases=("model",),
    )
    mask_ratio: float | None = option(
        None, "Fraction of masked patches. Default: that of the model.", show_in_help=True, metavar="FRACTION"
    )
    seed: int = option(0, "Seed of the masks.", show_in_help=True, ge=0, le=2**32 - 1)
    output: str = option("reconstructions.png", "Output image.", show_in_help=True, metavar="FILE")
    transforms: str | None = option(
        None, "Image transforms, if the model has no image processor.", choices=TRANSFORM_FAMILIES, show_in_help=True
    )
    norm_pix_loss: bool | None = option(
        None, "The decoder predicts normalized patches. Set it if the checkpoint does not store it.", show_in_help=True
    )
    num_attention_heads: int | None = option(None, NUM_HEADS_HELP, show_in_help=True, ge=1)
    decoder_num_attention_heads: int | None = option(None, DECODER_NUM_HEADS_HELP, show_in_help=True, ge=1)
    overwrite: bool = option(False, "Replace existing output.", show_in_help=True)

    def __post_init__(self) -> None:
        if self.mask_ratio is not None and not 0.0 < self.mask_ratio < 1.0:
            raise UsageError(SettingsMessage.MASK_RATIO_OUT_OF_RANGE, value=self.mask_ratio)
        if not self.output.lower().endswith(FIGURE_SUFFIXES):
            raise UsageError(SettingsMessage.OUTPUT_NOT_AN_IMAGE, path=self.output, suffixes=FIGURE_SUFFIXES)
