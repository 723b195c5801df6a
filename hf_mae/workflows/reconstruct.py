"""`reconstruct`: a contact sheet of images with masked patches and their reconstructions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..conversion import ConversionReport
from ..conversion.stock_models import load_image_processor
from ..data.images.image_error import summarize_image_error
from ..data.images.image_io import read_rgb
from ..data.images.transforms import image_processor, parse_mean_std
from ..data.sources.predict_inputs import find_input_paths
from ..errors import UsageError
from ..files.atomic import write_image
from ..inference.reconstruction import reconstruct_patches, sample_mask_noise
from ..models.building import build_pretrainer
from ..models.messages import ModelMessage
from ..models.model_zoo import load_checkpoint_catalogue, resolve_checkpoint
from ..reporting.reconstructions import make_reconstruction_sheet
from ..settings.parse import Settings
from .command import command
from .messages import WorkflowMessage


@dataclass(frozen=True)
class ReconstructionResult:
    """Number of images on the contact sheet, their mask ratio, and the file."""

    images: int
    mask_ratio: float
    output: str


@command("reconstruct")
def reconstruct(settings: Settings) -> ReconstructionResult:
    """Draws a contact sheet of reconstructions."""
    options = settings.options
    paths, source = find_input_paths(options.images), resolve_checkpoint(options.model_name_or_path)
    model = build_pretrainer(
        source,
        mask_ratio=options.mask_ratio,
        norm_pix_loss=options.norm_pix_loss,
        num_attention_heads=options.num_attention_heads,
        decoder_num_attention_heads=options.decoder_num_attention_heads,
    )
    _check_can_reconstruct(model.conversion_report, options)
    size = model.config.image_size
    processor = _load_processor(source, options.transforms, size)
    pixel_values = _load_pixel_values(paths, processor)
    height, width = pixel_values.shape[-2:]
    if width != size:
        raise UsageError(
            ModelMessage.PROCESSOR_SIZE_DIFFERS,
            source=options.model_name_or_path,
            size=size,
            width=width,
            height=height,
        )
    noise = sample_mask_noise(len(paths), (size // model.config.patch_size) ** 2, options.seed)
    reconstructions = reconstruct_patches(model, pixel_values, noise)
    sheet = make_reconstruction_sheet(pixel_values, reconstructions, processor.image_mean, processor.image_std)
    write_image(options.output, sheet, options.overwrite)
    return ReconstructionResult(len(paths), model.config.mask_ratio, options.output)


def _check_can_reconstruct(report: ConversionReport, options: Any) -> None:
    """Checks that the decoder was loaded, and that it is known whether it predicts normalized patches."""
    if any(entry["target"].startswith("decoder.") for entry in report.initialized):
        names = [name for name, entry in load_checkpoint_catalogue().items() if entry.parts != "encoder"]
        raise UsageError(WorkflowMessage.NO_DECODER, source=options.model_name_or_path, names=names[:3])
    if "norm_pix_loss" in report.assumed and options.norm_pix_loss is None:
        raise UsageError(WorkflowMessage.NORM_PIX_LOSS_UNKNOWN, source=options.model_name_or_path)


def _load_processor(source: str, family: str | None, image_size: int) -> Any:
    """Loads the image processor of the model; without one, builds that of a family of transforms."""
    if (Path(source) / "preprocessor_config.json").is_file() and not family:
        return load_image_processor(source)
    mean, std = parse_mean_std(None, family or "imagenet", None, image_size)
    return image_processor(family or "imagenet", image_size, mean, std)


def _load_pixel_values(paths: list[str], processor: Any) -> Tensor:
    """Loads pixel values (images, 3, height, width)."""
    tensors = []
    for path in paths:
        try:
            tensors.append(processor(read_rgb(path), return_tensors="pt")["pixel_values"][0])
        except (OSError, ValueError) as error:
            raise UsageError(
                WorkflowMessage.IMAGE_UNREADABLE, path=path, reason=summarize_image_error(error, path)
            ) from None
    return torch.stack(tensors)
