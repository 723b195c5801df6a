"""Describes a ViT for timm: model arguments, image preprocessing, and the folder for `timm.create_model`."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hf_mae.files.atomic import write_text

from .architecture import Architecture
from .messages import ConversionError, ConversionMessage
from .metadata import ACTIVATION, LAYER_NORM_EPS, SIZES, CheckpointMetadata
from .preprocessing import mae_image_processor, size_to_dict

INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # PIL.Image.Resampling
FALLBACK_MODEL_NAME = "vit_base_patch16_224"  # used with explicit arguments for a model of other sizes
CLASS_MAP_FILE = "class_map.txt"


def timm_name(architecture: Architecture) -> str:
    """Returns the name of the timm model of these sizes, or the fallback name."""
    sizes = (
        architecture.hidden_size,
        architecture.num_hidden_layers,
        architecture.num_attention_heads,
        architecture.patch_size,
    )
    if architecture.intermediate_size != 4 * architecture.hidden_size or architecture.hidden_act != ACTIVATION:
        return FALLBACK_MODEL_NAME
    return next((f"{name}_224" for name, values in SIZES.items() if values == sizes), FALLBACK_MODEL_NAME)


def timm_model_args(architecture: Architecture) -> dict[str, Any]:
    """Returns the arguments of timm's `VisionTransformer` for these sizes; `img_size` is (height, width)."""
    return {
        "img_size": architecture.height_width,
        "patch_size": architecture.patch_size,
        "in_chans": architecture.num_channels,
        "embed_dim": architecture.hidden_size,
        "depth": architecture.num_hidden_layers,
        "num_heads": architecture.num_attention_heads,
        "mlp_ratio": architecture.intermediate_size / architecture.hidden_size,
        "act_layer": architecture.hidden_act,
    }


def data_config(metadata: CheckpointMetadata, architecture: Architecture) -> dict[str, Any]:
    """Returns timm's data configuration for an image processor: input size, crop, interpolation, mean, std.

    timm resizes PIL images with torchvision, and transformers 5 resizes tensors. Some pixels differ by one grey level.

    Raises:
        ConversionError: If timm's evaluation cannot reproduce the image processor.
    """
    processor = metadata.image_processor
    if processor is None and architecture.num_channels == 3:
        processor = mae_image_processor(max(architecture.height_width)).to_dict()
    processor = processor or {}
    resized, crop = size_to_dict(processor.get("size")), None
    if processor.get("do_center_crop"):
        crop = size_to_dict(processor.get("crop_size"))
    crop_mode, crop_pct = "squash", 1.0
    shortest_edge = resized.get("shortest_edge") if resized else None
    if isinstance(shortest_edge, int) and crop and crop.get("height") == crop.get("width"):
        crop_mode, crop_pct = "center", _compute_crop_pct(shortest_edge, crop["height"])
    output_size = (crop or resized or {}).get("height"), (crop or resized or {}).get("width")
    interpolation = INTERPOLATIONS.get(processor.get("resample", -1))
    normalizes = processor.get("do_normalize", True)
    is_supported = processor.get("do_resize", True) and processor.get("do_rescale", True) and interpolation
    if normalizes and not (processor.get("image_mean") and processor.get("image_std")):
        is_supported = False
    if crop_mode == "squash" and crop and crop != resized:
        is_supported = False
    if not is_supported or output_size != architecture.height_width:
        raise ConversionError(ConversionMessage.TIMM_PREPROCESSING)
    return {
        "input_size": (architecture.num_channels, *architecture.height_width),
        "mean": tuple(processor["image_mean"]) if normalizes else (0.0,) * architecture.num_channels,
        "std": tuple(processor["image_std"]) if normalizes else (1.0,) * architecture.num_channels,
        "interpolation": interpolation,
        "crop_pct": crop_pct,
        "crop_mode": crop_mode,
    }


def _compute_crop_pct(shortest_edge: int, crop: int) -> float:
    """Computes the `crop_pct` with which timm resizes to this shorter side: floor(crop / crop_pct)."""
    crop_pct = crop / shortest_edge
    while math.floor(crop / crop_pct) < shortest_edge:
        crop_pct = math.nextafter(crop_pct, 0)
    return crop_pct


def write_timm_folder(
    folder: Path, metadata: CheckpointMetadata, architecture: Architecture, state: Mapping[str, Tensor]
) -> None:
    """Writes a folder for `timm.create_model("local-dir:FOLDER", pretrained=True)` (on the Hub: `hf-hub:USER/NAME`).

    It contains `model.safetensors`, `config.json` with the image preprocessing, and `class_map.txt` with the classes
    in their order for `validate.py --class-map`.

    Raises:
        ConversionError: If timm cannot reproduce the model or its image processor.
    """
    import timm
    from timm.models import save_for_hf

    if architecture.layer_norm_eps != LAYER_NORM_EPS:
        raise ConversionError(
            ConversionMessage.TIMM_EPSILON, expected=LAYER_NORM_EPS, epsilon=architecture.layer_norm_eps
        )
    num_classes = architecture.num_labels or 0
    model = timm.create_model(
        timm_name(architecture),
        num_classes=num_classes,
        global_pool="avg" if num_classes and "fc_norm.weight" in state else "token",
        **timm_model_args(architecture),
    )
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    names = metadata.class_names
    config: dict[str, Any] = {"label_names": names} if names else {}
    config["pretrained_cfg"] = {"tag": "hf_mae", "first_conv": "patch_embed.proj", "classifier": "head"}
    config["pretrained_cfg"] |= data_config(metadata, architecture)
    save_for_hf(model, str(folder), model_config=config, safe_serialization=True)
    if names:
        write_text(folder / CLASS_MAP_FILE, "".join(f"{name}\n" for name in names))
