"""The parts that image classifiers of transformers and timm have in common, whatever they are called there."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from ..compat.transformers import StockModel
from ..conversion.pretrained import is_mae_vit
from ..conversion.safety import is_timm
from ..errors import UsageError

NUM_CHANNELS = 3  # of every image that is read


def is_vit(config: Any) -> bool:
    """Whether a configuration is of transformers' ViT or BEiT, of which fine-tuned MAE encoders are."""
    return config.model_type in ("vit", "beit")


def input_size(model: StockModel) -> int:
    """Pixels a side that a model is used with."""
    return int(getattr(model, "input_size", None) or config_image_size(model.config) or model.config.image_size)


def config_image_size(config: Any) -> int | None:
    """Pixels a side that a configuration says; None where it says nothing (as a ResNet's).

    Raises:
        UsageError: they are not square, or of other than three channels.
    """
    timm = (getattr(config, "pretrained_cfg", None) or {}).get("input_size") if is_timm(config) else None
    own = getattr(config, "vision_config", config)
    channels, *sides = timm or (getattr(own, "num_channels", NUM_CHANNELS), getattr(own, "image_size", None))
    if channels != NUM_CHANNELS:
        raise UsageError(f"it takes images of {channels} channels, and images are read as RGB, of three.")
    sides = [side for part in sides for side in (part if isinstance(part, (list, tuple)) else [part])]
    if len(set(sides)) != 1:
        raise UsageError(f"it takes images of {' x '.join(map(str, sides))} pixels, and only square ones are used.")
    return sides[0]


def head_in_features(model: StockModel) -> int:
    """Channels of what the head reads."""
    return int(find_head(model)[1].in_features)


def find_head(model: StockModel) -> tuple[str, nn.Linear]:
    """The last linear layer, which gives the logits, and its name.

    Raises:
        UsageError: the logits come from something else.
    """
    classes = model.config.num_labels
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear or linear[-1][1].out_features != classes:
        raise UsageError(
            f"a {describe_model(model)} has no single linear head of {classes} classes, as is needed here."
        )
    return linear[-1]


def describe_model(model: StockModel) -> str:
    """The kind of network, and its size, in a few words."""
    blocks = len(find_blocks(model))
    config = model.config
    if is_vit(config):
        kind = "ViT" if is_mae_vit(config, "") else "BEiT"
        return f"{kind} of {blocks} blocks of {config.hidden_size}"
    kind = config.architecture if is_timm(config) else config.model_type
    return f"{kind} of {blocks} blocks"


def describe_non_mae_model(model: StockModel) -> str:
    """What a model is, in words, where it is not the vision transformer of a masked autoencoder; else nothing."""
    report = getattr(model, "conversion_report", None)
    distilled = report is not None and report.source.get("distilled")
    if is_mae_vit(model.config, "") and not distilled:
        return ""
    return describe_model(model)


def find_blocks(model: nn.Module) -> list[nn.Module]:
    """The residual blocks of a network, in the order in which an image passes them.

    They are the members of its lists of modules of one class, or where these are stages, of the lists within them.

    Raises:
        UsageError: it has none.
    """
    found = list(_iter_blocks(model))
    if not found:
        raise UsageError(f"no residual blocks are known of a {type(model).__name__}, so it cannot be used here.")
    return found


def _iter_blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if not _is_homogeneous_list(child):
            yield from _iter_blocks(child)
            continue
        for member in child.children():
            lists = [one for one in (member, *member.children()) if _is_homogeneous_list(one)]
            yield from (block for one in lists for block in one.children()) if lists else [member]


def _is_homogeneous_list(module: nn.Module) -> bool:
    """Whether it is a list of modules of one class of its own (or of lists), not of torch's layers."""
    kinds = {type(member) for member in module.children()}
    if not isinstance(module, (nn.ModuleList, nn.Sequential)) or len(kinds) != 1:
        return False
    (kind,) = kinds
    return issubclass(kind, (nn.ModuleList, nn.Sequential)) or not kind.__module__.startswith("torch.")


def get_layer_ids(model: StockModel) -> tuple[dict[str, int], int]:
    """The layer of each parameter, for layer-wise lr decay, and that of the head.

    Of timm models timm's own `group_matcher` says it. Of others, the stem is layer 0 and block i layer i + 1; what is
    between two blocks (a downsampling) belongs to the one that comes, and what comes after all of them to the head.
    """
    if is_timm(model.config) and hasattr(model.timm_model, "group_matcher"):
        from timm.models import group_parameters

        grouped = group_parameters(model.timm_model, model.timm_model.group_matcher(coarse=False), reverse=True)
        return {f"timm_model.{name}": layer for name, layer in grouped.items()}, max(grouped.values())
    names = {id(module): name for name, module in model.named_modules()}
    prefixes = [f"{names[id(block)]}." for block in find_blocks(model)]
    layers, passed, last = {}, 0, len(prefixes) + 1
    for name, _ in model.named_parameters():
        within = next((number for number, prefix in enumerate(prefixes, 1) if name.startswith(prefix)), None)
        passed = within or passed
        layers[name] = within or (passed + 1 if passed else 0)
    return layers, last


def mean_pool(features: Tensor) -> Tensor:
    """What a network makes of images, tokens or a square map of them, as (images, channels)."""
    if features.ndim == 4:
        _, first, second, third = features.shape
        return features.mean((1, 2) if first == second != third else (2, 3))
    return features.mean(1) if features.ndim == 3 else features
