"""Stock image processors: that of the source, or the evaluation preprocessing of the original code."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_mae.errors import first_error_line
from hf_mae.files.atomic import write_json

from .facts import Fact, FactCode, fact
from .messages import ConversionError, ConversionMessage

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BILINEAR, BICUBIC = 2, 3  # PIL.Image.Resampling
PROCESSOR_FILE = "preprocessor_config.json"
PROCESSOR_CHOICES = ("auto", "square", "mae")


def mae_image_processor(
    image_size: int, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Any:
    """Builds Resize(256) and CenterCrop(224), scaled to other image sizes like `build_transform` of the original code.

    Every field is set, because the defaults are wrong for these weights. The class is that of CLIP, which supports
    `shortest_edge` and a centre crop in transformers 4 and 5 (`ViTImageProcessor` of version 4 supports only height and
    width).
    """
    from transformers import CLIPImageProcessor

    crop_fraction = 224 / 256 if image_size <= 224 else 1.0
    return CLIPImageProcessor(
        do_convert_rgb=True,
        do_resize=True,
        size={"shortest_edge": int(image_size / crop_fraction)},
        resample=BICUBIC,
        do_center_crop=True,
        crop_size={"height": image_size, "width": image_size},
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=list(mean),
        image_std=list(std),
    )


def write_image_processor(folder: Path, config: Any, source: dict[str, Any] | None, kind: str = "auto") -> list[Fact]:
    """Writes `preprocessor_config.json` for a model.

    Args:
        folder: the folder of the model.
        config: the configuration of the model.
        source: the content of the source's preprocessor_config.json; None if it has no image processor.
        kind: one of PROCESSOR_CHOICES. `auto`: that of the source, scaled to the image size, else `mae`. `square`:
            every image is resized to the input size; programs that use `size` as the input size need this (the image
            classification example of transformers). `mae`: the shorter side is resized, then the centre is cropped.
            Mean and std are those of the source.

    Returns:
        Notes for the report.

    Raises:
        ConversionError: If the image processor of the source cannot be loaded, or `kind` does not fit these images.
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
        changes = [] if scaled == source else [fact(FactCode.PROCESSOR_SCALED, pixels=height_width[0])]
        return [fact(FactCode.PROCESSOR_OF_SOURCE), *changes]
    if channels != 3:
        return [fact(FactCode.NO_PROCESSOR, channels=channels)]
    if height_width[0] != height_width[1]:
        square_resize_processor(height_width).save_pretrained(folder)
        return [fact(FactCode.PROCESSOR_RESIZES, height=height_width[0], width=height_width[1])]
    mae_image_processor(height_width[0]).save_pretrained(folder)
    return []


def _build_image_processor(kind: str, height_width: tuple[int, ...], channels: int, source: dict[str, Any]) -> Any:
    """Builds a new image processor with the mean and std of the source."""
    if channels != 3:
        raise ConversionError(ConversionMessage.PROCESSOR_CHANNELS, processor=kind, channels=channels)
    mean_std = source.get("image_mean", IMAGENET_MEAN), source.get("image_std", IMAGENET_STD)
    if kind == "square":
        return square_resize_processor(height_width, *mean_std, source.get("resample", BICUBIC))
    if height_width[0] != height_width[1]:
        raise ConversionError(ConversionMessage.PROCESSOR_NOT_SQUARE, height=height_width[0], width=height_width[1])
    return mae_image_processor(height_width[0], *mean_std)


def square_resize_processor(
    height_width: tuple[int, ...],
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    resample: int = BICUBIC,
) -> Any:
    """Builds an image processor that resizes every image to (height, width) without cropping."""
    from transformers import ViTImageProcessor

    return ViTImageProcessor(
        do_convert_rgb=True,
        size={"height": height_width[0], "width": height_width[1]},
        resample=resample,
        image_mean=list(mean),
        image_std=list(std),
    )


def size_to_dict(size: Any) -> dict[str, Any] | None:
    """Returns the size of an image processor as a dict; a number means a square."""
    if isinstance(size, int):
        return {"height": size, "width": size}
    return size if isinstance(size, dict) else None


def _scale_processor(processor: dict[str, Any], height_width: tuple[int, ...]) -> dict[str, Any]:
    """Scales an image processor to another image size; returns it unchanged if it fits or has no height and width."""
    cropped = processor.get("do_center_crop") and processor.get("crop_size")
    output_size = size_to_dict(processor.get("crop_size") if cropped else processor.get("size"))
    if output_size is None or not isinstance(output_size.get("height"), int) or output_size["height"] < 1:
        return processor
    if (output_size["height"], output_size.get("width")) == height_width:
        return processor
    factor = height_width[0] / output_size["height"]
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
    except Exception as error:  # any error that unexpected fields can cause
        raise ConversionError(
            ConversionMessage.CANNOT_LOAD_PROCESSOR,
            type=source.get("image_processor_type", "without a type"),
            reason=first_error_line(error),
        ) from None
