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

    images: list[str] | None = option(None, "Files, folders and globs.", metavar="IMAGES")
    model_name_or_path: str | None = option(
        None, "An MAE .pth file, a folder, a Hub id, or a name listed by hf-mae checkpoints.", aliases=("model",)
    )
    mask_ratio: float | None = option(
        None, "Fraction of masked patches. Default: that of the model.", metavar="FRACTION", gt=0, lt=1
    )
    seed: int = option(0, "Seed of the masks.", ge=0, le=2**32 - 1)
    output: str = option("reconstructions.png", "Output image.", metavar="FILE")
    transforms: str | None = option(
        None, "Image transforms, if the model has no image processor.", choices=TRANSFORM_FAMILIES
    )
    norm_pix_loss: bool | None = option(
        None, "The decoder predicts normalized patches. Set it if the checkpoint does not store it."
    )
    num_attention_heads: int | None = option(None, NUM_HEADS_HELP, ge=1)
    decoder_num_attention_heads: int | None = option(None, DECODER_NUM_HEADS_HELP, ge=1)
    overwrite: bool = option(False, "Replace existing output.")

    def __post_init__(self) -> None:
        if not self.output.lower().endswith(FIGURE_SUFFIXES):
            raise UsageError(SettingsMessage.OUTPUT_NOT_AN_IMAGE, path=self.output, suffixes=FIGURE_SUFFIXES)
