"""Sheets of reconstructions by a masked autoencoder, also during pre-training."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from transformers import TrainerCallback

from ..files.atomic import write_image
from ..inference.reconstruction import reconstruct_patches, sample_mask_noise
from ..training.trackers import log_image

COLUMN_TITLES = ("original", "masked", "reconstruction", "reconstruction + visible")
MASK_GREY = 0.5  # of masked patches


def make_reconstruction_sheet(pixel_values: Tensor, reconstructions: dict[str, Tensor], mean, std) -> Image.Image:
    """Makes a sheet with one row per image: original, masked, reconstruction, and reconstruction with visible patches.

    Args:
        pixel_values: (images, 3, height, width), normalised.
        reconstructions: result of `reconstruct_patches`.
        mean, std: of the normalisation.
    """

    def denormalize(values: Tensor) -> np.ndarray:
        scale, shift = torch.tensor(std).view(3, 1, 1), torch.tensor(mean).view(3, 1, 1)
        return (values.float().cpu() * scale + shift).clamp(0, 1).permute(0, 2, 3, 1).numpy()

    original, mask = denormalize(pixel_values), reconstructions["mask"].cpu().permute(0, 2, 3, 1).numpy()
    columns = [
        original,
        original * (1 - mask) + MASK_GREY * mask,
        denormalize(reconstructions["reconstruction"]),
        denormalize(reconstructions["pasted"]),
    ]
    height, width = original.shape[1:3]
    gap, head = 4, 18
    page = Image.new("RGB", (4 * (width + gap) + gap, len(original) * (height + gap) + head), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for column, (title, images) in enumerate(zip(COLUMN_TITLES, columns)):
        left = gap + column * (width + gap)
        draw.text((left, 3), title, fill="black", font=font)
        for row, image in enumerate(images):
            tile = Image.fromarray((255 * image).round().astype(np.uint8))
            page.paste(tile, (left, head + row * (height + gap)))
    return page


class ReconstructionCallback(TrainerCallback):
    """Saves sheets of the same images with the same masks to `reconstructions/` and to the tracker.

    Args:
        trainer: a `MaePretrainer`.
        pixel_values: (images, 3, height, width), normalised.
        steps: updates between sheets.
    """

    def __init__(self, trainer, pixel_values: Tensor, steps: int):
        self.trainer, self.pixel_values, self.steps = trainer, pixel_values, steps
        config = trainer.model.config
        self.noise = sample_mask_noise(len(pixel_values), (config.image_size // config.patch_size) ** 2, seed=0)

    def on_step_end(self, args, state, control, **kwargs):
        """Saves a sheet every `steps` updates and after the last one."""
        due = state.global_step % self.steps == 0 or state.global_step == state.max_steps
        sharded = self.trainer.is_fsdp_enabled or self.trainer.is_deepspeed_enabled
        if due and (sharded or self.trainer.is_world_process_zero()):
            self.save_sheet(args, state.global_step)

    def save_sheet(self, args, step: int) -> None:
        """Saves the sheet of an update. If the weights are sharded, all processes must call this."""
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        device = next(model.parameters()).device
        pixel_values = self.pixel_values.to(device)
        with self.trainer.compute_loss_context_manager():
            reconstructions = reconstruct_patches(model, pixel_values, self.noise.to(device))
        if not self.trainer.is_world_process_zero():
            return
        processor = self.trainer.processing_class
        sheet = make_reconstruction_sheet(self.pixel_values, reconstructions, processor.image_mean, processor.image_std)
        folder = Path(args.output_dir) / "reconstructions"
        write_image(folder / f"step-{step:07d}.png", sheet)
        log_image(self.trainer, "reconstructions", sheet, step)
