"""timm: RandAugment's posterize. Verified with timm 1.0.20 to 1.0.31."""

from typing import Any

from PIL import Image, ImageOps


def mend_posterize(transform: Any) -> None:
    """Lets RandAugment posterize to 0 bits, which it does at magnitude 10 and which Pillow 13 refuses.

    Earlier Pillow versions made such an image black, and so does this; no random draw changes.

    Args:
        transform: of `timm.data.create_transform`, changed in place.
    """
    from timm.data import auto_augment

    for step in transform.transforms:
        for op in getattr(step, "ops", []):
            if op.aug_fn is auto_augment.posterize:
                op.aug_fn = posterize


def posterize(image: Image.Image, bits_to_keep: int, **_: Any) -> Image.Image:
    """timm's `posterize`, black where no bits are kept."""
    if bits_to_keep >= 8:
        return image
    return ImageOps.posterize(image, bits_to_keep) if bits_to_keep > 0 else Image.new(image.mode, image.size)
