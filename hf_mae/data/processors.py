"""Image processors of transformers: their own, and the one that stands for timm's evaluation transform.

A model of timm carries its preprocessing in its configuration (`pretrained_cfg`), and transformers reads no other; so
the preprocessing that a run chose is written there, and `pipeline()` does what was judged.
"""

import math
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from ..conversion.preprocessing import BICUBIC, BILINEAR

INTERPOLATION_NAMES = {BILINEAR: "bilinear", BICUBIC: "bicubic"}  # timm's, of what Pillow numbers


def is_timm_processor(processor: Any) -> bool:
    """Whether an image processor stands for timm's transform."""
    return type(processor).__name__ == "TimmWrapperImageProcessor"


def get_processor_settings(processor: Any) -> dict[str, Any]:
    """What an image processor does, by the names of transformers' own."""
    if not is_timm_processor(processor):
        settings: dict[str, Any] = processor.to_dict()
        return settings
    made = processor.data_config
    size, squeezes = made["input_size"][-1], made["crop_mode"] == "squash"
    edge = math.floor(size / made["crop_pct"])
    return {
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": size, "width": size} if squeezes else {"shortest_edge": edge},
        "resample": next(
            (number for number, name in INTERPOLATION_NAMES.items() if name == made["interpolation"]), BICUBIC
        ),
        "do_center_crop": not squeezes,
        "crop_size": None if squeezes else {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(made["mean"]),
        "image_std": list(made["std"]),
    }


def to_timm_processor(processor: Any, config: Any) -> Any:
    """The same preprocessing as timm does it, written into a model's configuration.

    Args:
        processor: of `image_processor`.
        config: of a `TimmWrapperForImageClassification`; changed in place.
    """
    from transformers import TimmWrapperImageProcessor

    made = processor.to_dict()
    cropped = made.get("do_center_crop")
    size = made["crop_size" if cropped else "size"]["height"]
    own = {name: value for name, value in (config.pretrained_cfg or {}).items() if not name.startswith("test_")}
    config.pretrained_cfg = own | {
        "input_size": [3, size, size],
        "interpolation": INTERPOLATION_NAMES[int(made["resample"])],
        "crop_mode": "center" if cropped else "squash",
        "crop_pct": _crop_pct(size, made["size"]["shortest_edge"]) if cropped else 1.0,
        "mean": list(made["image_mean"]),
        "std": list(made["image_std"]),
    }
    return TimmWrapperImageProcessor(config.pretrained_cfg, architecture=config.architecture)


def to_transformers_processor(processor: Any) -> Any:
    """The same preprocessing in a class of transformers that is saved beside a model, whatever the model is."""
    from transformers import CLIPImageProcessor, ViTImageProcessor

    if not is_timm_processor(processor):
        return processor
    settings = get_processor_settings(processor)
    return (CLIPImageProcessor if settings["do_center_crop"] else ViTImageProcessor)(**settings)


def _crop_pct(size: int, edge: int) -> float:
    """The share of an image's shorter side that is cropped, of which timm computes the same side again."""
    exact = size / edge
    return next(share for share in (0.875, exact, math.nextafter(exact, 0)) if math.floor(size / share) == edge)


def resize_and_crop(processor: Any, image: Image.Image) -> Image.Image:
    """The part of a processor that comes before the arithmetic, resize and crop: RGB image -> RGB image."""
    if is_timm_processor(processor):
        steps, _ = _split_at_to_tensor(processor)
        return cast(Image.Image, _apply_steps(steps, image))
    pixels = processor(image, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"][0]
    return Image.fromarray(pixels.to(torch.uint8).permute(1, 2, 0).numpy())


def rescale_and_normalize(processor: Any, pixels: np.ndarray) -> torch.Tensor:
    """The other part: uint8 (height, width, 3) -> float32 (3, height, width)."""
    if is_timm_processor(processor):
        _, steps = _split_at_to_tensor(processor)
        return cast(torch.Tensor, _apply_steps(steps, pixels))
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    prepared = processor(tensor, do_resize=False, do_center_crop=False, return_tensors="pt")
    return cast(torch.Tensor, prepared["pixel_values"][0])


def _split_at_to_tensor(processor: Any) -> tuple[list[Any], list[Any]]:
    """The steps of timm's transform before an image becomes a tensor, and from there on."""
    from torchvision.transforms import ToTensor

    steps = list(processor.val_transforms.transforms)
    place = next(number for number, step in enumerate(steps) if isinstance(step, ToTensor))
    return steps[:place], steps[place:]


def _apply_steps(steps: list[Any], value: Any) -> Any:
    for step in steps:
        value = step(value)
    return value
