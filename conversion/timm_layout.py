"""A ViT as timm knows it: its arguments, its way to prepare images, and the folder that `timm.create_model` reads."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hf_mae.files.atomic import write_text

from .architecture import Architecture
from .errors import ConversionError
from .metadata import ACTIVATION, LAYER_NORM_EPS, CheckpointMetadata
from .preprocessing import mae_image_processor, size_to_dict

INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # PIL.Image.Resampling
# (patch size, width, blocks, heads) of the models that timm has under a name.
TIMM_MODEL_NAMES = {
    (16, 192, 12, 3): "vit_tiny_patch16_224",
    (16, 384, 12, 6): "vit_small_patch16_224",
    (16, 768, 12, 12): "vit_base_patch16_224",
    (16, 1024, 24, 16): "vit_large_patch16_224",
    (14, 1280, 32, 16): "vit_huge_patch14_224",
}
FALLBACK_MODEL_NAME = (
    "vit_base_patch16_224"  # the name under which a model of other sizes is built, every argument given
)
CLASS_MAP_FILE = "class_map.txt"


def timm_name(architecture: Architecture) -> str:
    """The name of timm's model of these sizes, or of one whose arguments then say them."""
    sizes = (
        architecture.patch_size,
        architecture.hidden_size,
        architecture.num_hidden_layers,
        architecture.num_attention_heads,
    )
    usual = architecture.intermediate_size == 4 * architecture.hidden_size and architecture.hidden_act == ACTIVATION
    return TIMM_MODEL_NAMES.get(sizes, FALLBACK_MODEL_NAME) if usual else FALLBACK_MODEL_NAME


def timm_model_args(architecture: Architecture) -> dict[str, Any]:
    """The arguments of timm's `VisionTransformer` of these sizes; images are (height, width) of `img_size`."""
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
    """timm's name for the pooling of a model with this state dict: patches are averaged where `fc_norm` norms them."""
    return "avg" if "fc_norm.weight" in state else "token"


def data_config(metadata: CheckpointMetadata, architecture: Architecture) -> dict[str, Any]:
    """How timm prepares images as the image processor does: input size, crop, interpolation, mean, std.

    The resizing itself is torchvision's on PIL images in timm; transformers 5 resizes tensors, so that pixels differ
    by a grey level here and there.

    Raises:
        ConversionError: the image processor does something that timm's evaluation does not.
    """
    processor = metadata.image_processor
    if processor is None and architecture.num_channels == 3:
        processor = mae_image_processor(max(architecture.height_width)).to_dict()
    processor = processor or {}
    resized, crop = size_to_dict(processor.get("size")), None
    if processor.get("do_center_crop"):
        crop = size_to_dict(processor.get("crop_size"))
    mode, share = "squash", 1.0
    shorter = resized.get("shortest_edge") if resized else None
    if isinstance(shorter, int) and crop and crop.get("height") == crop.get("width"):
        mode, share = "center", _compute_crop_pct(shorter, crop["height"])
    given = (crop or resized or {}).get("height"), (crop or resized or {}).get("width")
    resampling = INTERPOLATIONS.get(processor.get("resample", -1))
    normed = processor.get("do_normalize", True)
    plain = processor.get("do_resize", True) and processor.get("do_rescale", True) and resampling
    if normed and not (processor.get("image_mean") and processor.get("image_std")):
        plain = False
    if not plain or given != architecture.height_width or (mode == "squash" and crop and crop != resized):
        raise ConversionError(
            "timm's evaluation does not prepare images as this model's image processor does: use it through "
            "transformers, or convert with --processor reference or square first."
        )
    return {
        "input_size": (architecture.num_channels, *architecture.height_width),
        "mean": tuple(processor["image_mean"]) if normed else (0.0,) * architecture.num_channels,
        "std": tuple(processor["image_std"]) if normed else (1.0,) * architecture.num_channels,
        "interpolation": resampling,
        "crop_pct": share,
        "crop_mode": mode,
    }


def _compute_crop_pct(shorter: int, crop: int) -> float:
    """The `crop_pct` from which timm computes this shorter side: floor(crop / crop_pct)."""
    share = crop / shorter
    while math.floor(crop / share) < shorter:
        share = math.nextafter(share, 0)
    return share


def check_timm_compatible(architecture: Architecture) -> None:
    """Raises ConversionError where timm's ViT computes something else."""
    if architecture.layer_norm_eps != LAYER_NORM_EPS:
        raise ConversionError(
            f"timm's ViT has layer norms with epsilon {LAYER_NORM_EPS:g}, and this model has them with "
            f"{architecture.layer_norm_eps:g}."
        )


def timm_validate_args(
    destination: Path, metadata: CheckpointMetadata, architecture: Architecture, state: Mapping[str, Tensor]
) -> str:
    """The flags with which timm's `validate.py` evaluates an exported checkpoint as it was evaluated here.

    Raises:
        ConversionError: as of `data_config` and `refuse_for_timm`.
    """
    check_timm_compatible(architecture)
    data = data_config(metadata, architecture)
    name = timm_name(architecture)
    flags = ["--model", name, "--checkpoint", str(destination), "--num-classes", str(len(state["head.weight"]))]
    flags += ["--gp", timm_global_pool(state), "--img-size", str(architecture.height_width[0])]
    flags += ["--mean", *map(repr, data["mean"]), "--std", *map(repr, data["std"])]
    flags += ["--crop-pct", repr(data["crop_pct"]), "--crop-mode", data["crop_mode"]]
    flags += ["--interpolation", data["interpolation"]]
    if name == FALLBACK_MODEL_NAME:  # ViT-B too: what it has already does no harm
        sizes = timm_model_args(architecture)
        names = ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "act_layer")
        flags += ["--model-kwargs", *(f"{key}={sizes[key]}" for key in names)]
    return shlex.join(flags)


def has_different_timm_order(names: list[str]) -> bool:
    """Whether timm, which sorts class folders as people count (2 before 10), would number these otherwise."""
    from timm.utils import natural_key

    return sorted(names, key=natural_key) != names


def write_timm_folder(
    folder: Path, metadata: CheckpointMetadata, architecture: Architecture, state: Mapping[str, Tensor]
) -> None:
    """Writes what `timm.create_model("local-dir:FOLDER", pretrained=True)`, or `hf-hub:USER/NAME`, reads.

    `model.safetensors`, `config.json` with the way to prepare images, and `class_map.txt` with the classes in their
    order for `validate.py --class-map`.

    Raises:
        ConversionError: as of `data_config` and `refuse_for_timm`.
    """
    import timm
    from timm.models import save_for_hf

    check_timm_compatible(architecture)
    head = state.get("head.weight")
    classes = 0 if head is None else len(head)
    pooling = timm_global_pool(state) if classes else "token"
    data = data_config(metadata, architecture)
    model = timm.create_model(
        timm_name(architecture), num_classes=classes, global_pool=pooling, **timm_model_args(architecture)
    )
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    names = metadata.class_names
    config: dict[str, Any] = {"label_names": names} if names else {}
    config["pretrained_cfg"] = {"tag": "hf_mae", "first_conv": "patch_embed.proj", "classifier": "head"} | data
    save_for_hf(model, str(folder), model_config=config, safe_serialization=True)
    if names:
        write_text(folder / CLASS_MAP_FILE, "".join(f"{name}\n" for name in names))
