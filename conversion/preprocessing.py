"""The reference's evaluation preprocessing as a stock image processor."""

from collections.abc import Sequence
from typing import Any

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BILINEAR, BICUBIC = 2, 3  # PIL.Image.Resampling


def reference_image_processor(
    image_size: int, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Any:
    """Resize(256) + CenterCrop(224), scaled to other image sizes as `build_transform` in the reference's datasets.py.

    Every field is written out, because the defaults of `ViTImageProcessor` (mean and std of 0.5, bilinear, square
    resize) are not those of these weights.
    """
    from transformers import ViTImageProcessor

    crop_share = 224 / 256 if image_size <= 224 else 1.0
    return ViTImageProcessor(
        do_convert_rgb=True,
        do_resize=True,
        size={"shortest_edge": int(image_size / crop_share)},
        resample=BICUBIC,
        do_center_crop=True,
        crop_size={"height": image_size, "width": image_size},
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=list(mean),
        image_std=list(std),
    )
