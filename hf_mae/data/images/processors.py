"""Image processors of transformers, including `TimmWrapperImageProcessor` (timm's evaluation transform).

The configuration of a timm model contains its preprocessing (`pretrained_cfg`), and transformers reads only that.
Therefore the preprocessing of a run is written there, so that `pipeline()` gives the evaluated results.
"""

import math
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from ...conversion.preprocessing import BICUBIC, BILINEAR

INTERPOLATION_NAMES = {BILINEAR: "bilinear", BICUBIC: "bicubic"}  # Pillow's constant -> timm's name


def is_timm_processor(processor: Any) -> bool:
    """Whether an image processor wraps timm's transform."""
    return type(processor).__name__ == "TimmWrapperImageProcessor"


def get_processor_settings(processor: Any) -> dict[str, Any]:
    """Returns the settings of an image processor, under the names of transformers' own processors."""
    if not is_timm_processor(processor):
        settings: dict[str, Any] = processor.to_dict()
        return settings
    data_config = processor.data_config
    size, squashes = data_config["input_size"][-1], data_config["crop_mode"] == "squash"
    edge = math.floor(size / data_config["crop_pct"])
    interpolations = {name: number for number, name in INTERPOLATION_NAMES.items()}
    return {
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": size, "width": size} if squashes else {"shortest_edge": edge},
        "resample": interpolations.get(data_config["interpolation"], BICUBIC),
        "do_center_crop": not squashes,
        "crop_size": None if squashes else {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(data_config["mean"]),
        "image_std": list(data_config["std"]),
    }


def to_timm_processor(processor: Any, config: Any) -> Any:
    """Writes the preprocessing into the configuration of a timm model. Returns the image processor of that
    configuration.

    Args:
        processor: result of `image_processor`.
        config: of a `TimmWrapperForImageClassification`; changed in place.
    """
    from transformers import TimmWrapperImageProcessor

    settings = processor.to_dict()
    crops = settings.get("do_center_crop")
    size = settings["crop_size" if crops else "size"]["height"]
    other = {name: value for name, value in (config.pretrained_cfg or {}).items() if not name.startswith("test_")}
    config.pretrained_cfg = other | {
        "input_size": [3, size, size],
        "interpolation": INTERPOLATION_NAMES[int(settings["resample"])],
        "crop_mode": "center" if crops else "squash",
        "crop_pct": _crop_pct(size, settings["size"]["shortest_edge"]) if crops else 1.0,
        "mean": list(settings["image_mean"]),
        "std": list(settings["image_std"]),
    }
    return TimmWrapperImageProcessor(config.pretrained_cfg, architecture=config.architecture)


def to_transformers_processor(processor: Any) -> Any:
    """Converts timm's preprocessing to a processor of transformers, which can be saved with any model."""
    from transformers import CLIPImageProcessor, ViTImageProcessor

    if not is_timm_processor(processor):
        return processor
    settings = get_processor_settings(processor)
    return (CLIPImageProcessor if settings["do_center_crop"] else ViTImageProcessor)(**settings)


def _crop_pct(size: int, edge: int) -> float:
    """Returns the `crop_pct` from which timm computes this shorter edge (`floor(size / crop_pct)`)."""
    exact = size / edge
    return next(value for value in (0.875, exact, math.nextafter(exact, 0)) if math.floor(size / value) == edge)


def resize_and_crop(processor: Any, image: Image.Image) -> Image.Image:
    """Applies the first part of a processor, resize and crop: RGB image -> RGB image."""
    if is_timm_processor(processor):
        steps, _ = _split_at_to_tensor(processor)
        return cast(Image.Image, _apply_steps(steps, image))
    pixels = processor(image, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"][0]
    return Image.fromarray(pixels.to(torch.uint8).permute(1, 2, 0).numpy())


def rescale_and_normalize(processor: Any, pixels: np.ndarray) -> torch.Tensor:
    """Applies the second part of a processor: uint8 (height, width, 3) -> float32 (3, height, width)."""
    if is_timm_processor(processor):
        _, steps = _split_at_to_tensor(processor)
        return cast(torch.Tensor, _apply_steps(steps, pixels))
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    batch = processor(tensor, do_resize=False, do_center_crop=False, return_tensors="pt")
    return cast(torch.Tensor, batch["pixel_values"][0])


def _split_at_to_tensor(processor: Any) -> tuple[list[Any], list[Any]]:
    """Returns the steps of timm's transform before `ToTensor`, and the others."""
    from torchvision.transforms import ToTensor

    steps = list(processor.val_transforms.transforms)
    index = next(index for index, step in enumerate(steps) if isinstance(step, ToTensor))
    return steps[:index], steps[index:]


def _apply_steps(steps: list[Any], value: Any) -> Any:
    for step in steps:
        value = step(value)
    return value
