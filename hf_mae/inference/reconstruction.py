"""Reconstruction of masked patches by a masked autoencoder."""

from typing import Any

import torch
from torch import Tensor

from ..data.images.seeding import seed_all


@torch.no_grad()  # not inference_mode, which would break parameters gathered by FSDP and DeepSpeed
def reconstruct_patches(model: Any, pixel_values: Tensor, noise: Tensor) -> dict[str, Tensor]:
    """Reconstructs images (batch, channels, height, width), in the units of `pixel_values`.

    Args:
        model: a `ViTMAEForPreTraining`; mask ratio and patch normalization are those of its configuration.
        pixel_values: (batch, channels, height, width), as in training.
        noise: (batch, patches); the patches with the highest values are masked.

    Returns:
        `mask` (batch, 1, height, width), 1 if masked; `reconstruction`, the predicted patches, denormalized with the
        mean and variance of the original patches if necessary; `pasted`, the same with the original visible patches.
    """
    was_training = model.training
    model.eval()
    try:
        output = model(pixel_values=pixel_values.to(model.dtype), noise=noise)
        predicted, patch_mask = output.logits.float(), output.mask
        if model.config.norm_pix_loss:
            patches = model.patchify(pixel_values.float())
            mean, variance = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
            predicted = predicted * (variance + 1e-6) ** 0.5 + mean
        images = model.unpatchify(predicted)
        mask = model.unpatchify(patch_mask[..., None].expand_as(predicted).float())[:, :1]
    finally:
        model.train(was_training)
    return {"mask": mask, "reconstruction": images, "pasted": images * mask + pixel_values.float() * (1 - mask)}


def sample_mask_noise(num_images: int, num_patches: int, seed: int) -> Tensor:
    """Samples noise (images, patches), which determines the masked patches."""
    with seed_all(seed):
        return torch.rand(num_images, num_patches)
