"""Parameter groups with layer-wise learning rate decay.

Source: `param_groups_lrd` in util/lr_decay.py of facebookresearch/mae (after BEiT and ELECTRA).
"""

import re
from typing import Any

from torch import nn

from ..conversion.stock_models import is_mae_vit
from ..models.introspection import get_layer_ids

# (pattern, layer) of parameter names; the first match counts. The layer id of a block is its index plus one; the head
# and the last norms have the id after the last block, with scale 1. A name that no pattern matches is an error.
EMBEDDINGS, BLOCK, HEAD = "embeddings", "block", "head"

LAYERS = (
    (r"(?:(?:vit|beit)\.)?embeddings\.(?:cls_token|mask_token|position_embeddings)", EMBEDDINGS),
    (r"(?:(?:vit|beit)\.)?embeddings\.patch_embeddings\.projection\.(?:weight|bias)", EMBEDDINGS),
    (r"(?:(?:vit|beit)\.)?layers\.(\d+)\..+", BLOCK),
    (r"(?:(?:vit|beit)\.)?layernorm\.(?:weight|bias)", HEAD),
    (r"(?:beit\.)?pooler\.layernorm\.(?:weight|bias)", HEAD),
    (r"classifier\.(?:weight|bias)", HEAD),
)

# Not decayed, whatever their shape (models_vit.py inherits timm's no_weight_decay: pos_embed and cls_token).
NO_WEIGHT_DECAY = re.compile(r".*embeddings\.(?:cls_token|position_embeddings)")
TOKENS_AND_POSITIONS = r"(?:token|tokens|class_embedding|position_embeddings?|bias_table)(?:\.weight)?$"
MATCH_NOTHING = re.compile(r"$^")
WRAPPER_PREFIX = re.compile(r"(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def strip_wrapper_prefixes(name: str) -> str:
    """Removes the prefixes of DDP, FSDP, torch.compile and activation checkpointing from a parameter name."""
    return WRAPPER_PREFIX.sub("", name)


def get_layer_id(name: str, num_layers: int) -> int:
    """Returns the layer id of a parameter: 0 for tokens, positions and patches, i + 1 for block i, `num_layers` + 1 for
    the head.

    Args:
        name: parameter name in a ViT or BEiT classifier of transformers, or in their backbones.
        num_layers: number of encoder blocks.

    Raises:
        ValueError: If no pattern of `LAYERS` matches.
    """
    for pattern, kind in LAYERS:
        if match := re.fullmatch(pattern, name):
            return {EMBEDDINGS: 0, HEAD: num_layers + 1}[kind] if kind != BLOCK else int(match.group(1)) + 1
    raise ValueError(
        f"The layer of the parameter '{name}' is unknown. Add a pattern for it to hf_mae.training.layer_decay.LAYERS."
    )


def has_weight_decay(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: not to 1-D parameters (biases, norms), class token and position embeddings."""
    return parameter.ndim > 1 and not NO_WEIGHT_DECAY.fullmatch(name)


def parameter_groups(
    model: nn.Module, learning_rate: float, weight_decay: float = 0.05, layer_decay: float = 0.75
) -> list[dict[str, Any]]:
    """Builds groups for `torch.optim.AdamW`, one per layer and weight decay, in the order of the parameters.

    Args:
        model: a ViT or BEiT classifier of transformers; `models.introspection.get_layer_ids` gives the layers of other
            networks.
        learning_rate: absolute learning rate of the head.
        weight_decay: weight decay of weight matrices.
        layer_decay: lr of layer i is learning_rate x layer_decay ** (num_layers + 1 - i).

    Returns:
        Dicts with `params`, `lr` (contains the scale of the layer), `lr_scale` and `weight_decay`, without frozen
        parameters.

    Raises:
        ValueError: If the layer of a parameter is unknown.
    """
    named = [(strip_wrapper_prefixes(name), p) for name, p in model.named_parameters() if p.requires_grad]
    layers, last = _get_layer_ids(model, [name for name, _ in named])
    no_decay = _no_weight_decay_pattern(model)
    groups: dict[tuple[int, bool], dict] = {}
    for name, parameter in named:
        layer, decay = layers[name], has_weight_decay(name, parameter) and not no_decay.search(name)
        if (layer, decay) not in groups:
            scale = layer_decay ** (last - layer)
            groups[layer, decay] = {
                "params": [],
                "lr": learning_rate * scale,
                "lr_scale": scale,
                "weight_decay": weight_decay if decay else 0.0,
            }
        groups[layer, decay]["params"].append(parameter)
    return list(groups.values())


def _get_layer_ids(model: nn.Module, names: list[str]) -> tuple[dict[str, int], int]:
    """Returns the layer id of each parameter, and the layer id of the head."""
    if _is_other_architecture(model):
        layers, last = get_layer_ids(model)
        return {strip_wrapper_prefixes(name): layer for name, layer in layers.items()}, last
    matches = (re.fullmatch(LAYERS[2][0], strip_wrapper_prefixes(name)) for name, _ in model.named_parameters())
    num_layers = 1 + max((int(match.group(1)) for match in matches if match), default=-1)
    return {name: get_layer_id(name, num_layers) for name in names}, num_layers + 1


def _is_other_architecture(model: nn.Module) -> bool:
    config = getattr(model, "config", None)
    return config is not None and not is_mae_vit(config)


def _no_weight_decay_pattern(model: nn.Module) -> re.Pattern[str]:
    """Returns the pattern of tokens and position embeddings in other networks: timm's `no_weight_decay`, transformers'
    names."""
    if not _is_other_architecture(model):
        return MATCH_NOTHING
    timm_names: set[str] = getattr(getattr(model, "timm_model", None), "no_weight_decay", set)()
    return re.compile("|".join([TOKENS_AND_POSITIONS, *(rf"^timm_model\.{re.escape(name)}$" for name in timm_names)]))


def pretraining_parameter_groups(
    model: nn.Module, learning_rate: float, weight_decay: float = 0.05
) -> list[dict[str, Any]]:
    """Builds the groups of pre-training, without layer decay. Weight decay skips biases and norms, but not the tokens.

    Source: timm's `add_weight_decay` as main_pretrain.py calls it (1-D parameters and biases are exempt). The position
    embeddings are frozen, so they are not in a group.
    """
    groups: list[dict[str, Any]] = [
        {"params": [], "lr": learning_rate, "lr_scale": 1.0, "weight_decay": 0.0},
        {"params": [], "lr": learning_rate, "lr_scale": 1.0, "weight_decay": weight_decay},
    ]
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[parameter.ndim > 1]["params"].append(parameter)
    return [group for group in groups if group["params"]]
