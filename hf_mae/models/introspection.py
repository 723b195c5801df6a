"""Head, blocks, layer ids and input size of any image classifier of transformers or timm."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..compat.transformers import StockModel
from ..conversion.safety import is_timm
from ..conversion.stock_models import is_mae_vit
from ..errors import UsageError
from .messages import ModelMessage
from .network import ModelFacts, Network

NUM_CHANNELS = 3  # images are read as RGB
DEFAULT_IMAGE_SIZE = 224  # of networks that accept any size
POOLINGS = {"ViTForImageClassification": "cls", "BeitForImageClassification": "mean"}  # of the stock classes


def is_vit(config: Any) -> bool:
    """Whether a configuration is of transformers' ViT or BEiT, the classes of fine-tuned MAE encoders."""
    return config.model_type in ("vit", "beit")


def input_size(model: StockModel) -> int:
    """Returns the side length of the input images of a model, in pixels."""
    return int(getattr(model, "input_size", None) or config_image_size(model.config) or DEFAULT_IMAGE_SIZE)


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
        UsageError: If no linear layer has the classes as its outputs, or more than one has.
    """
    classes = len(model.config.id2label or ()) or model.config.num_labels
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear or linear[-1][1].out_features != classes:
        raise UsageError(ModelMessage.NO_LINEAR_HEAD, model=type(model).__name__, classes=classes)
    if sum(module.out_features == classes for _, module in linear) > 1 and len(names := _find_heads(model)) > 1:
        raise UsageError(ModelMessage.SEVERAL_HEADS, model=type(model).__name__, count=len(names), names=names)
    return linear[-1]


def _find_heads(model: StockModel) -> list[str]:
    """Returns the names of the linear layers whose size changes with the number of classes."""
    other = copy.deepcopy(model.config)
    other.num_labels = model.config.num_labels + 1
    other_sizes = {name: parameter.shape for name, parameter in _build_on_meta(model, other).named_parameters()}
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and other_sizes[f"{name}.weight"] != module.weight.shape
    ]


def _build_on_meta(model: StockModel, config: Any = None) -> StockModel:
    """Builds a model of the same class without weights; `config`: another configuration."""
    with torch.device("meta"):
        return type(model)(copy.deepcopy(config or model.config)).eval()


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


def get_model_facts(model: StockModel) -> ModelFacts:
    """Describes a classifier, and what its conversion report (if there is one) says about the initial weights."""
    pooling = POOLINGS.get(type(model).__name__) if is_mae_vit(model.config) else None
    report = getattr(model, "conversion_report", None)
    if report is None:
        return ModelFacts(type(model).__name__, input_size(model), pooling)
    head, _ = find_head(model)
    new_head = any(entry["target"].startswith(head) for entry in report.initialized)
    source_class = report.source.get("class")
    is_mae = source_class.startswith("ViTMAE") if source_class else report.source.get("layout") == "mae" and new_head
    return ModelFacts(type(model).__name__, input_size(model), pooling, bool(is_mae), new_head)


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
    lists = [child for child in module.children() if _is_homogeneous_list(child)]
    stages = [child for child in lists if any(_member_lists(member) for member in child.children())]
    for child in module.children():
        if child not in lists:
            yield from _iter_blocks(child)
        elif not stages or child in stages:  # with stages, other lists contain e.g. embeddings
            for member in child.children():
                blocks = [block for members in _member_lists(member) for block in members.children()]
                yield from blocks or [member]


def _member_lists(member: nn.Module) -> list[nn.Module]:
    """Returns the lists of blocks that are a member of a list, or in it."""
    return [candidate for candidate in (member, *member.children()) if _is_homogeneous_list(candidate)]


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

    For timm models these are timm's own (`group_matcher`). For others, the stem is layer 0 and block i is layer i + 1,
    in the order of execution; a module between two blocks (downsampling) belongs to the next block, and modules after
    the last block to the head. The names of the parameters are those of the model without wrappers.
    """
    model = next(module for module in model.modules() if isinstance(module, PreTrainedModel))  # without wrappers
    if is_timm(model.config) and hasattr(model.timm_model, "group_matcher"):
        from timm.models import group_parameters

        grouped = group_parameters(model.timm_model, model.timm_model.group_matcher(coarse=False), reverse=True)
        return {f"timm_model.{name}": layer for name, layer in grouped.items()}, max(grouped.values())
    structure = _build_on_meta(model)
    layers, num_blocks = _trace_layers(structure, input_size(model))
    ids = {}
    for name, _ in structure.named_parameters():
        owner = name.rpartition(".")[0]
        while owner not in layers:  # its weight is used without a call
            owner = owner.rpartition(".")[0]
        ids[name] = layers[owner]
    return ids, num_blocks + 1


@torch.no_grad()
def _trace_layers(model: StockModel, size: int) -> tuple[dict[str, int], int]:
    """Returns the layer id of each module that a forward pass on the meta device calls, and the number of blocks."""
    block_of = {module: block for block in find_blocks(model) for module in block.modules()}
    numbers: dict[nn.Module, int] = {}
    layers: dict[str, int] = {}

    def record(name: str, module: nn.Module) -> None:
        block = block_of.get(module)
        if block is not None:
            numbers.setdefault(block, len(numbers) + 1)
        following = len(numbers) + 1 if numbers else 0
        layers.setdefault(name, following if block is None else numbers[block])

    for name, module in model.named_modules():
        module.register_forward_pre_hook(lambda module, _, name=name: record(name, module))
    model(pixel_values=torch.zeros(1, NUM_CHANNELS, size, size, device="meta"))
    return layers, len(numbers)


def mean_pool(features: Tensor) -> Tensor:
    """Averages tokens or a square feature map over positions, to (images, channels)."""
    if features.ndim == 4:
        _, first, second, third = features.shape
        return features.mean((1, 2) if first == second != third else (2, 3))
    return features.mean(1) if features.ndim == 3 else features
