"""timm: RandAugment's posterize, verified with timm 1.0.20 to 1.0.31; and its networks, which need 1.0.31.

transformers builds a network of timm without memory before it reads the weights. Of what is not saved (tables of
relative positions, say) timm before 1.0.31 then leaves whatever the memory held: a Swin V2 that is read back gives
other logits, or none, and nothing tells.
"""

from importlib.metadata import version
from typing import Any

from packaging.version import Version
from PIL import Image, ImageOps

from ..errors import UsageError

MIN_TIMM_VERSION = "1.0.31"


def check_timm_version() -> None:
    """Raises UsageError where networks of timm are not what they were when they are read back."""
    if Version(found := version("timm")) < Version(MIN_TIMM_VERSION):
        raise UsageError(
            f"networks of timm need timm {MIN_TIMM_VERSION} or newer, as older ones lose parts when they are read back, "
            f"and here is {found}: pip install -U timm."
        )


def patch_posterize(transform: Any) -> None:
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
