"""timm: RandAugment's posterize (verified with timm 1.0.20 to 1.0.31), and the version that timm models need.

transformers builds a timm model on the meta device before it reads the weights. Before 1.0.31, timm does not initialize
buffers that are not saved, such as tables of relative positions: a saved Swin V2 silently returns other logits or NaN
after it is loaded again.
"""

from importlib.metadata import version
from typing import Any

from packaging.version import Version
from PIL import Image, ImageOps

from ..errors import UsageError
from .messages import CompatMessage

MIN_TIMM_VERSION = "1.0.31"


def check_timm_version() -> None:
    """Raises UsageError if the installed timm does not load saved models correctly."""
    if Version(installed := version("timm")) < Version(MIN_TIMM_VERSION):
        raise UsageError(CompatMessage.TIMM_TOO_OLD, required=MIN_TIMM_VERSION, installed=installed)


def patch_posterize(transform: Any) -> None:
    """Makes RandAugment's posterize work with 0 bits (magnitude 10), which Pillow 13 rejects.

    The result is a black image, as in earlier versions of Pillow. Random numbers are not affected.

    Args:
        transform: a transform of `timm.data.create_transform`, changed in place.
    """
    from timm.data import auto_augment

    for step in transform.transforms:
        for op in getattr(step, "ops", []):
            if op.aug_fn is auto_augment.posterize:
                op.aug_fn = posterize


def posterize(image: Image.Image, bits_to_keep: int, **_: Any) -> Image.Image:
    """Equals timm's `posterize`, but returns a black image for 0 bits."""
    if bits_to_keep >= 8:
        return image
    return ImageOps.posterize(image, bits_to_keep) if bits_to_keep > 0 else Image.new(image.mode, image.size)
