"""Image processors: the source's own where it has one, else the reference's evaluation preprocessing as a stock one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_mae.files.atomic import write_json

from .errors import ConversionError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BILINEAR, BICUBIC = 2, 3  # PIL.Image.Resampling
PROCESSOR_FILE = "preprocessor_config.json"
PROCESSOR_CHOICES = ("auto", "square", "reference")


def mae_image_processor(
    image_size: int, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Any:
    """Resize(256) + CenterCrop(224), scaled to other image sizes as `build_transform` in the reference's datasets.py.

    Every field is written out, because no defaults are those of these weights. The class is CLIP's, which reads a
    shorter side and a centre crop in transformers 4 and 5 alike (`ViTImageProcessor` of 4 knows height and width
    alone).
    """
    from transformers import CLIPImageProcessor

    crop_share = 224 / 256 if image_size <= 224 else 1.0
    return CLIPImageProcessor(
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


def write_image_processor(folder: Path, config: Any, source: dict[str, Any] | None, kind: str = "auto") -> list[str]:
    """Writes `preprocessor_config.json` for a model: the source's own, scaled to the image size, or the reference's.

    Args:
        folder: where the model is.
        config: its configuration.
        source: what the source's own file holds; None: it has none.
        kind: one of PROCESSORS. `auto`: the source's own, else the reference's. `square`: every image is resized to
            the input size, as programs need that take `size` for the input size (transformers' example of image
            classification). `reference`: shorter side, then centre crop. Mean and std are the source's own.

    Returns:
        Notes on what is not as one would suppose.

    Raises:
        ConversionError: the source's own cannot be read, or the kind is none for these images.
    """
    size, channels = config.image_size, config.num_channels
    height_width = (size, size) if isinstance(size, int) else tuple(size)
    if kind != "auto":
        _build_image_processor(kind, height_width, channels, source or {}).save_pretrained(folder)
        return []
    if source is not None:
        scaled = _scale_processor(source, height_width)
        write_json(folder / PROCESSOR_FILE, scaled)
        _check_processor_loads(folder, source)
        changed = [] if scaled == source else [f"its image processor was scaled to {height_width[0]} pixels"]
        return ["the image processor is the source's own", *changed]
    if channels != 3:
        return [f"no image processor is written: there is none for images of {channels} channels"]
    if height_width[0] != height_width[1]:
        square_resize_processor(height_width).save_pretrained(folder)
        return [f"the image processor resizes every image to {height_width[0]} x {height_width[1]}"]
    mae_image_processor(height_width[0]).save_pretrained(folder)
    return []


def _build_image_processor(kind: str, height_width: tuple[int, ...], channels: int, source: dict[str, Any]) -> Any:
    """A fresh image processor that was asked for, with the mean and std of the source's own."""
    if channels != 3:
        raise ConversionError(f"--processor {kind} is for images of 3 channels, and these have {channels}.")
    colours = source.get("image_mean", IMAGENET_MEAN), source.get("image_std", IMAGENET_STD)
    if kind == "square":
        return square_resize_processor(height_width, *colours, source.get("resample", BICUBIC))
    if height_width[0] != height_width[1]:
        raise ConversionError(
            f"--processor reference cuts out squares, and this model takes images of {height_width[0]} x "
            f"{height_width[1]}: pass --processor square."
        )
    return mae_image_processor(height_width[0], *colours)


def square_resize_processor(
    height_width: tuple[int, ...],
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    resample: int = BICUBIC,
) -> Any:
    """Resize to (height, width), whatever the shape of an image."""
    from transformers import ViTImageProcessor

    return ViTImageProcessor(
        do_convert_rgb=True,
        size={"height": height_width[0], "width": height_width[1]},
        resample=resample,
        image_mean=list(mean),
        image_std=list(std),
    )


def size_to_dict(size: Any) -> dict[str, Any] | None:
    """A size of an image processor as a dict; a number is a square."""
    if isinstance(size, int):
        return {"height": size, "width": size}
    return size if isinstance(size, dict) else None


def _scale_processor(processor: dict[str, Any], height_width: tuple[int, ...]) -> dict[str, Any]:
    """The same processor for another image size; itself where it gives that already, or its size is of another kind."""
    cropped = processor.get("do_center_crop") and processor.get("crop_size")
    made = size_to_dict(processor.get("crop_size") if cropped else processor.get("size"))
    if made is None or not isinstance(made.get("height"), int) or made["height"] < 1:
        return processor
    if (made["height"], made.get("width")) == height_width:
        return processor
    factor = height_width[0] / made["height"]
    scaled = dict(processor)
    if cropped:
        scaled["crop_size"] = {"height": height_width[0], "width": height_width[1]}
        if isinstance(size := processor.get("size"), dict):
            scaled["size"] = {name: round(v * factor) if isinstance(v, int) else v for name, v in size.items()}
        elif isinstance(size, int):
            scaled["size"] = round(size * factor)
    else:
        scaled["size"] = {"height": height_width[0], "width": height_width[1]}
    return scaled


def _check_processor_loads(folder: Path, source: dict[str, Any]) -> None:
    from PIL import Image
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
        processor(Image.new("RGB", (64, 48)), return_tensors="pt")
    except Exception as error:  # whatever a class makes of fields that it does not expect
        kind = source.get("image_processor_type", "of no type")
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConversionError(f"The image processor of the source ({kind}) cannot be read: {reason}") from None
