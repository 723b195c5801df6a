"""`reconstruct`: a sheet of what a masked autoencoder makes of hidden patches."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..conversion import ConversionReport
from ..data.image_io import read_rgb, summarize_image_error
from ..data.predict_inputs import find_input_paths
from ..data.transforms import image_processor, parse_mean_std
from ..errors import UsageError
from ..files.atomic import write_image
from ..models.building import build_pretrainer
from ..models.model_zoo import load_checkpoint_catalogue, resolve_checkpoint
from ..models.reconstruction import reconstruct_patches, sample_mask_noise
from ..reporting.reconstructions import make_reconstruction_sheet
from ..settings.parse import parse_settings


@dataclass(frozen=True)
class ReconstructionResult:
    """A sheet: how many images it shows, what share of their patches was hidden, and its file."""

    images: int
    mask_ratio: float
    output: str


def reconstruct(**flags: Any) -> ReconstructionResult:
    """Draws a sheet of reconstructions; `flags` are those of `hf-mae reconstruct`."""
    (options,) = parse_settings("reconstruct", None, **flags).arguments
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
    if pixel_values.shape[-1] != size:
        raise UsageError(
            f"{options.model_name_or_path} takes images of {size} pixels, its image processor makes them "
            f"{pixel_values.shape[-1]}."
        )
    noise = sample_mask_noise(len(paths), (size // model.config.patch_size) ** 2, options.seed)
    pictures = reconstruct_patches(model, pixel_values, noise)
    page = make_reconstruction_sheet(pixel_values, pictures, processor.image_mean, processor.image_std)
    write_image(options.output, page, options.overwrite)
    return ReconstructionResult(len(paths), model.config.mask_ratio, options.output)


def _check_can_reconstruct(report: ConversionReport, options: Any) -> None:
    """A decoder of random weights draws noise, and normalised patches that are taken for pixels draw another
    picture."""
    if any(entry["target"].startswith("decoder.") for entry in report.initialized):
        have_one = [name for name, public in load_checkpoint_catalogue().items() if "encoder only" not in public.layout]
        raise UsageError(
            f"{options.model_name_or_path} has no decoder, which is what reconstructs: take a checkpoint of the whole "
            f"pre-training, such as {', '.join(have_one[:3])} (hf-mae checkpoints lists them)."
        )
    if "norm_pix_loss" in report.assumed and options.norm_pix_loss is None:
        raise UsageError(
            f"{options.model_name_or_path} does not say whether its decoder predicts normalised patches "
            "(norm_pix_loss), which changes every picture: pass --norm_pix_loss true or --norm_pix_loss false."
        )


def _load_processor(source: str, family: str | None, image_size: int) -> Any:
    """The model's own image processor; where it has none, that of a family of transforms."""
    if (Path(source) / "preprocessor_config.json").is_file() and not family:
        from transformers import AutoImageProcessor

        return AutoImageProcessor.from_pretrained(source)
    mean, std = parse_mean_std(None, family or "imagenet", None, image_size)
    return image_processor(family or "imagenet", image_size, mean, std)


def _load_pixel_values(paths: list[str], processor: Any) -> Tensor:
    """Pixel values (images, 3, height, width)."""
    tensors = []
    for path in paths:
        try:
            tensors.append(processor(read_rgb(path), return_tensors="pt")["pixel_values"][0])
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read ({summarize_image_error(error, path)}).") from None
    return torch.stack(tensors)
