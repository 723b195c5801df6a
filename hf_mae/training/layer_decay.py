"""Parameter groups with layer-wise learning rate decay.

Source: `param_groups_lrd` in util/lr_decay.py of facebookresearch/mae (after BEiT and ELECTRA).
"""

import re
from typing import Any

from torch import nn

from ..models.introspection import get_layer_ids

# Not decayed, whatever their shape (models_vit.py inherits timm's no_weight_decay: pos_embed and cls_token).
NO_WEIGHT_DECAY = re.compile(r"(?:tokens?|class_embedding|position_embeddings?|bias_table)(?:\.weight)?$")
WRAPPER_PREFIX = re.compile(r"(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def strip_wrapper_prefixes(name: str) -> str:
    """Removes the prefixes of DDP, FSDP, torch.compile and activation checkpointing from a parameter name."""
    return WRAPPER_PREFIX.sub("", name)


def parameter_groups(
    model: nn.Module, learning_rate: float, weight_decay: float = 0.05, layer_decay: float = 0.75
) -> list[dict[str, Any]]:
    """Builds groups for `torch.optim.AdamW`, one per layer and weight decay, in the order of the parameters.

    Args:
        model: a classifier of transformers or timm; `models.introspection.get_layer_ids` gives its layers.
        learning_rate: absolute learning rate of the head.
        weight_decay: weight decay of weight matrices.
        layer_decay: lr of layer i is learning_rate x layer_decay ** (num_layers + 1 - i).

    Returns:
        Dicts with `params`, `lr` (contains the scale of the layer), `lr_scale` and `weight_decay`, without frozen
        parameters.
    """
    layers, last = get_layer_ids(model)
    layers = {strip_wrapper_prefixes(name): layer for name, layer in layers.items()}
    timm_names: set[str] = getattr(getattr(model, "timm_model", None), "no_weight_decay", set)()
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for full_name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        name = strip_wrapper_prefixes(full_name)
        is_exempt = NO_WEIGHT_DECAY.search(name) or name.removeprefix("timm_model.") in timm_names
        layer, decay = layers[name], parameter.ndim > 1 and not is_exempt
        scale = layer_decay ** (last - layer)
        group = {
            "params": [],
            "lr": learning_rate * scale,
            "lr_scale": scale,
            "weight_decay": weight_decay if decay else 0.0,
        }
        groups.setdefault((layer, decay), group)["params"].append(parameter)
    return list(groups.values())


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
