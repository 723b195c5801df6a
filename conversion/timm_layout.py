"""Describes a ViT for timm: model arguments, image preprocessing, and the folder for `timm.create_model`."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hf_mae.files.atomic import write_text

from .architecture import Architecture
from .messages import ConversionError, ConversionMessage
from .metadata import ACTIVATION, LAYER_NORM_EPS, CheckpointMetadata
from .preprocessing import mae_image_processor, size_to_dict

INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # PIL.Image.Resampling
# (patch size, width, blocks, heads) -> name of a timm model.
TIMM_MODEL_NAMES = {
    (16, 192, 12, 3): "vit_tiny_patch16_224",
    (16, 384, 12, 6): "vit_small_patch16_224",
    (16, 768, 12, 12): "vit_base_patch16_224",
    (16, 1024, 24, 16): "vit_large_patch16_224",
    (14, 1280, 32, 16): "vit_huge_patch14_224",
}
FALLBACK_MODEL_NAME = "vit_base_patch16_224"  # used with explicit arguments for a model of other sizes
CLASS_MAP_FILE = "class_map.txt"


def timm_name(architecture: Architecture) -> str:
    """Returns the name of the timm model of these sizes, or the fallback name."""
    sizes = (
        architecture.patch_size,
        architecture.hidden_size,
        architecture.num_hidden_layers,
        architecture.num_attention_heads,
    )
    is_standard = (
        architecture.intermediate_size == 4 * architecture.hidden_size and architecture.hidden_act == ACTIVATION
    )
    return TIMM_MODEL_NAMES.get(sizes, FALLBACK_MODEL_NAME) if is_standard else FALLBACK_MODEL_NAME


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


def timm_global_pool(state: Mapping[str, Tensor]) -> str:
    """Returns timm's name for the pooling of a state dict: `avg` if it contains `fc_norm`, else `token`."""
    return "avg" if "fc_norm.weight" in state else "token"


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


def check_timm_compatible(architecture: Architecture) -> None:
    """Raises ConversionError if timm's ViT computes a different function."""
    if architecture.layer_norm_eps != LAYER_NORM_EPS:
        raise ConversionError(
            ConversionMessage.TIMM_EPSILON, expected=LAYER_NORM_EPS, epsilon=architecture.layer_norm_eps
        )


def timm_validate_args(
    destination: Path, metadata: CheckpointMetadata, architecture: Architecture, state: Mapping[str, Tensor]
) -> str:
    """Returns the flags with which timm's `validate.py` evaluates an exported checkpoint identically.

    Raises:
        ConversionError: If timm cannot reproduce the model or its image processor.
    """
    check_timm_compatible(architecture)
    data = data_config(metadata, architecture)
    name = timm_name(architecture)
    flags = ["--model", name, "--checkpoint", str(destination), "--num-classes", str(len(state["head.weight"]))]
    flags += ["--gp", timm_global_pool(state), "--img-size", str(architecture.height_width[0])]
    flags += ["--mean", *map(repr, data["mean"]), "--std", *map(repr, data["std"])]
    flags += ["--crop-pct", repr(data["crop_pct"]), "--crop-mode", data["crop_mode"]]
    flags += ["--interpolation", data["interpolation"]]
    if name == FALLBACK_MODEL_NAME:  # for ViT-B, the arguments equal the defaults
        model_args = timm_model_args(architecture)
        names = ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "act_layer")
        flags += ["--model-kwargs", *(f"{key}={model_args[key]}" for key in names)]
    return shlex.join(flags)


def has_different_timm_order(names: list[str]) -> bool:
    """Whether timm, which sorts class folders in natural order (2 before 10), numbers these classes differently."""
    from timm.utils import natural_key

    return sorted(names, key=natural_key) != names


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

    check_timm_compatible(architecture)
    head = state.get("head.weight")
    num_classes = 0 if head is None else len(head)
    pooling = timm_global_pool(state) if num_classes else "token"
    data = data_config(metadata, architecture)
    model = timm.create_model(
        timm_name(architecture), num_classes=num_classes, global_pool=pooling, **timm_model_args(architecture)
    )
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    names = metadata.class_names
    config: dict[str, Any] = {"label_names": names} if names else {}
    config["pretrained_cfg"] = {"tag": "hf_mae", "first_conv": "patch_embed.proj", "classifier": "head"} | data
    save_for_hf(model, str(folder), model_config=config, safe_serialization=True)
    if names:
        write_text(folder / CLASS_MAP_FILE, "".join(f"{name}\n" for name in names))
