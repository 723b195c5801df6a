"""`hf-mae reconstruct`, and sheets while pre-training: what a masked autoencoder makes of patches that are hidden."""

import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from transformers import TrainerCallback

from .cli import Parser
from .data.images import seeded_draws
from .errors import UsageError
from .trackers import log_picture

logger = logging.getLogger(__name__)

COLUMNS = ("original", "masked", "reconstruction", "reconstruction + visible")
GREY = 0.5  # of a hidden patch


@torch.no_grad()  # inference mode would spoil what FSDP and DeepSpeed gather for it
def reconstruct(model, pixel_values: Tensor, noise: Tensor) -> dict[str, Tensor]:
    """Pictures (batch, channels, height, width), in the units of `pixel_values`.

    Args:
        model: a `ViTMAEForPreTraining`; its configuration says the mask ratio, and whether patches were normalised.
        pixel_values: (batch, channels, height, width), as the model was trained on.
        noise: (batch, patches): the patches with the highest are hidden.

    Returns:
        `mask` (batch, 1, height, width), 1 where hidden; `reconstruction`, every patch as the model predicts it, with a
        normalised patch given its own mean and variance again; `pasted`, with the visible patches as they are.
    """
    was_training = model.training
    model.eval()
    try:
        output = model(pixel_values=pixel_values.to(model.dtype), noise=noise)
        predicted, hidden = output.logits.float(), output.mask
        if model.config.norm_pix_loss:
            patches = model.patchify(pixel_values.float())
            mean, variance = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
            predicted = predicted * (variance + 1e-6) ** 0.5 + mean
        picture = model.unpatchify(predicted)
        mask = model.unpatchify(hidden[..., None].expand_as(predicted).float())[:, :1]
    finally:
        model.train(was_training)
    return {"mask": mask, "reconstruction": picture, "pasted": picture * mask + pixel_values.float() * (1 - mask)}


def mask_noise(count: int, patches: int, seed: int) -> Tensor:
    """The noise (count, patches) that decides which patches are hidden."""
    with seeded_draws(seed):
        return torch.rand(count, patches)


def sheet(pixel_values: Tensor, pictures: dict[str, Tensor], mean, std) -> Image.Image:
    """A row for each image: original, masked, reconstruction, and reconstruction with the visible patches.

    Args:
        pixel_values: (images, 3, height, width), normalised.
        pictures: of `reconstruct`.
        mean, std: by which the pixels were normalised.
    """

    def shown(values: Tensor) -> np.ndarray:
        scale, shift = torch.tensor(std).view(3, 1, 1), torch.tensor(mean).view(3, 1, 1)
        return (values.float().cpu() * scale + shift).clamp(0, 1).permute(0, 2, 3, 1).numpy()

    original, mask = shown(pixel_values), pictures["mask"].cpu().permute(0, 2, 3, 1).numpy()
    columns = [
        original,
        original * (1 - mask) + GREY * mask,
        shown(pictures["reconstruction"]),
        shown(pictures["pasted"]),
    ]
    height, width = original.shape[1:3]
    gap, head = 4, 18
    page = Image.new("RGB", (4 * (width + gap) + gap, len(original) * (height + gap) + head), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for column, (title, images) in enumerate(zip(COLUMNS, columns)):
        left = gap + column * (width + gap)
        draw.text((left, 3), title, fill="black", font=font)
        for row, image in enumerate(images):
            tile = Image.fromarray((255 * image).round().astype(np.uint8))
            page.paste(tile, (left, head + row * (height + gap)))
    return page


class ReconstructionSheets(TrainerCallback):
    """Every so many updates a sheet of the same images, under the same masks, into `reconstructions/` and the tracker.

    Args:
        trainer: a `MaePretrainer`.
        pixel_values: (images, 3, height, width), normalised.
        steps: updates between sheets.
        mean, std: by which the pixels were normalised.
    """

    def __init__(self, trainer, pixel_values: Tensor, steps: int, mean, std):
        self.trainer, self.pixel_values, self.steps, self.mean, self.std = trainer, pixel_values, steps, mean, std
        config = trainer.model.config
        self.noise = mask_noise(len(pixel_values), (config.image_size // config.patch_size) ** 2, seed=0)

    def on_step_end(self, args, state, control, **kwargs):
        due = state.global_step % self.steps == 0 or state.global_step == state.max_steps
        # Where the weights are shared out, every process has to take part.
        together = self.trainer.is_fsdp_enabled or self.trainer.is_deepspeed_enabled
        if due and (together or self.trainer.is_world_process_zero()):
            self.draw(args, state.global_step)

    def draw(self, args, step: int) -> None:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        device = next(model.parameters()).device
        pixel_values = self.pixel_values.to(device)
        with self.trainer.compute_loss_context_manager():
            pictures = reconstruct(model, pixel_values, self.noise.to(device))
        if not self.trainer.is_world_process_zero():
            return
        page = sheet(self.pixel_values, pictures, self.mean, self.std)
        folder = Path(args.output_dir) / "reconstructions"
        folder.mkdir(parents=True, exist_ok=True)
        page.save(folder / f"step-{step:07d}.png")
        log_picture(self.trainer, "reconstructions", page, step)


def main(argv: list[str]) -> int:
    parser = Parser("reconstruct", "Sheets of what a masked autoencoder makes of hidden patches.")
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="files, folders and globs")
    parser.add_argument(
        "--model", "--model_name_or_path", "--model-name-or-path", required=True, help="an MAE .pth, a folder or a name"
    )
    parser.flag("mask_ratio", type=float, help="share of hidden patches; not given: the model's own")
    parser.flag("seed", type=int, default=0, help="of the masks")
    parser.flag("output", default="reconstructions.png", help="the sheet to write (default: %(default)s)")
    parser.flag("transforms", choices=["endoscopy", "imagenet"], help="where the model has no image processor")
    parser.flag("num_attention_heads", type=int, help="where the width does not tell")
    parser.flag("decoder_num_attention_heads", type=int, help="where the width does not tell")
    parser.flag("overwrite", action="store_true", help="replace the sheet")
    options = parser.parse_args(argv)
    if options.mask_ratio is not None and not 0.0 < options.mask_ratio < 1.0:
        raise UsageError(f"--mask_ratio must lie between 0 and 1, not {options.mask_ratio}.")
    if not options.output.lower().endswith((".png", ".jpg", ".jpeg", ".webp")):
        raise UsageError(f"--output takes the name of a picture (.png), not {options.output}.")

    from .checkpoints import resolve
    from .conversion.writing import whole_file
    from .data.transforms import image_processor, parse_mean_std, to_rgb
    from .models import build_pretrainer
    from .predict import find_images
    from .runs import set_up_logging

    set_up_logging(True)
    paths = find_images(options.images)
    source = resolve(options.model)
    model = build_pretrainer(
        source,
        mask_ratio=options.mask_ratio,
        num_attention_heads=options.num_attention_heads,
        decoder_num_attention_heads=options.decoder_num_attention_heads,
    )
    if Path(source).is_dir() and (Path(source) / "preprocessor_config.json").is_file() and not options.transforms:
        from transformers import AutoImageProcessor

        processor = AutoImageProcessor.from_pretrained(source)
    else:
        family = options.transforms or "imagenet"
        mean, std = parse_mean_std(None, family, None, model.config.image_size)
        processor = image_processor(family, model.config.image_size, mean, std)
    tensors = []
    for path in paths:
        try:
            with Image.open(path) as image:
                tensors.append(processor(to_rgb(image), return_tensors="pt")["pixel_values"][0])
        except OSError as error:
            raise UsageError(f"{path} cannot be read ({error}).") from None
    pixel_values = torch.stack(tensors)
    if pixel_values.shape[-1] != model.config.image_size:
        raise UsageError(
            f"{options.model} takes images of {model.config.image_size} pixels, its image processor makes them "
            f"{pixel_values.shape[-1]}."
        )
    patches = (model.config.image_size // model.config.patch_size) ** 2
    pictures = reconstruct(model, pixel_values, mask_noise(len(paths), patches, options.seed))
    page = sheet(pixel_values, pictures, processor.image_mean, processor.image_std)
    with whole_file(options.output, options.overwrite) as temporary:
        page.save(temporary, format="PNG" if options.output.lower().endswith(".png") else None)
    print(f"{len(paths)} images, {100 * model.config.mask_ratio:g} % of their patches hidden: {options.output}")
    return 0
