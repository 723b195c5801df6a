"""Head, blocks, layer ids and input size of any image classifier of transformers or timm."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..compat.transformers import StockModel
from ..conversion.safety import is_timm
from ..conversion.stock_models import is_mae_vit
from ..errors import UsageError
from .messages import ModelMessage
from .network import Network

NUM_CHANNELS = 3  # images are read as RGB


def is_vit(config: Any) -> bool:
    """Whether a configuration is of transformers' ViT or BEiT, the classes of fine-tuned MAE encoders."""
    return config.model_type in ("vit", "beit")


def input_size(model: StockModel) -> int:
    """Returns the side length of the input images of a model, in pixels."""
    return int(getattr(model, "input_size", None) or config_image_size(model.config) or model.config.image_size)


def config_image_size(config: Any, source: str | Path = "The model") -> int | None:
    """Returns the side length of the images in a configuration, in pixels; None if it has none (such as a ResNet's).

    Args:
        source: the name of the model in errors.

    Raises:
        UsageError: If the images are not square, or do not have three channels.
    """
    timm = (getattr(config, "pretrained_cfg", None) or {}).get("input_size") if is_timm(config) else None
    vision_config = getattr(config, "vision_config", config)
    channels, *sizes = timm or (
        getattr(vision_config, "num_channels", NUM_CHANNELS),
        getattr(vision_config, "image_size", None),
    )
    if channels != NUM_CHANNELS:
        raise UsageError(ModelMessage.INPUT_NOT_RGB, source=source, channels=channels)
    sides = [side for size in sizes for side in (size if isinstance(size, (list, tuple)) else [size])]
    if len(set(sides)) != 1:
        raise UsageError(ModelMessage.INPUT_NOT_SQUARE, source=source, size=" x ".join(map(str, sides)))
    return sides[0]


def find_head(model: StockModel) -> tuple[str, nn.Linear]:
    """Finds the name and the module of the classification head, the last linear layer.

    Raises:
        UsageError: If the logits are not the output of this layer.
    """
    num_labels = model.config.num_labels
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear or linear[-1][1].out_features != num_labels:
        raise UsageError(ModelMessage.NO_LINEAR_HEAD, model=get_network(model), classes=num_labels)
    return linear[-1]


def get_network(model: StockModel) -> Network:
    """Returns the architecture and size of a model."""
    num_blocks, config = len(find_blocks(model)), model.config
    if is_vit(config):
        return Network("ViT" if is_mae_vit(config) else "BEiT", num_blocks, config.hidden_size)
    return Network(config.architecture if is_timm(config) else config.model_type, num_blocks)


def get_non_mae_network(model: StockModel) -> Network | None:
    """Returns the architecture and size of a model that is not an MAE ViT; None for an MAE ViT."""
    report = getattr(model, "conversion_report", None)
    distilled = report is not None and report.source.get("distilled")
    return None if is_mae_vit(model.config) and not distilled else get_network(model)


def find_blocks(model: nn.Module) -> list[nn.Module]:
    """Finds the residual blocks of a network, in forward order.

    They are the members of its homogeneous module lists; if these members are stages, the members of the lists in them.

    Raises:
        UsageError: If there are none.
    """
    blocks = list(_iter_blocks(model))
    if not blocks:
        raise UsageError(ModelMessage.NO_BLOCKS, model=type(model).__name__)
    return blocks


def _iter_blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if not _is_homogeneous_list(child):
            yield from _iter_blocks(child)
            continue
        for member in child.children():
            lists = [candidate for candidate in (member, *member.children()) if _is_homogeneous_list(candidate)]
            yield from (block for blocks in lists for block in blocks.children()) if lists else [member]


def _is_homogeneous_list(module: nn.Module) -> bool:
    """Whether a module is a list of modules of one class, which is a list or is not one of torch's layers."""
    classes = {type(member) for member in module.children()}
    if not isinstance(module, (nn.ModuleList, nn.Sequential)) or len(classes) != 1:
        return False
    (member_class,) = classes
    return issubclass(member_class, (nn.ModuleList, nn.Sequential)) or not member_class.__module__.startswith(
        "torch.nn."
    )


def get_layer_ids(model: StockModel) -> tuple[dict[str, int], int]:
    """Returns the layer id of each parameter for layer-wise learning rate decay, and the layer id of the head.

    For timm models these are timm's own (`group_matcher`). For others, the stem is layer 0 and block i is layer i + 1;
    a module between two blocks (downsampling) belongs to the next block, and modules after the last block to the head.
    """
    if is_timm(model.config) and hasattr(model.timm_model, "group_matcher"):
        from timm.models import group_parameters

        grouped = group_parameters(model.timm_model, model.timm_model.group_matcher(coarse=False), reverse=True)
        return {f"timm_model.{name}": layer for name, layer in grouped.items()}, max(grouped.values())
    names = {id(module): name for name, module in model.named_modules()}
    prefixes = [f"{names[id(block)]}." for block in find_blocks(model)]
    layers, previous, head = {}, 0, len(prefixes) + 1
    for name, _ in model.named_parameters():
        block = next((number for number, prefix in enumerate(prefixes, 1) if name.startswith(prefix)), None)
        previous = block or previous
        layers[name] = block or (previous + 1 if previous else 0)
    return layers, head


def mean_pool(features: Tensor) -> Tensor:
    """Averages tokens or a square feature map over positions, to (images, channels)."""
    if features.ndim == 4:
        _, first, second, third = features.shape
        return features.mean((1, 2) if first == second != third else (2, 3))
    return features.mean(1) if features.ndim == 3 else features
