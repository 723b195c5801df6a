"""What a masked autoencoder makes of patches that are hidden."""

from typing import Any

import torch
from torch import Tensor

from ..data.seeding import seed_all


@torch.no_grad()  # inference mode would spoil what FSDP and DeepSpeed gather for it
def reconstruct_patches(model: Any, pixel_values: Tensor, noise: Tensor) -> dict[str, Tensor]:
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


def sample_mask_noise(num_images: int, num_patches: int, seed: int) -> Tensor:
    """The noise (count, patches) that decides which patches are hidden."""
    with seed_all(seed):
        return torch.rand(num_images, num_patches)
