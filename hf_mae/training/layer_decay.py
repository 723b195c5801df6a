"""Parameter groups with layer-wise learning rate decay.

Source: `param_groups_lrd` in util/lr_decay.py of facebookresearch/mae (after BEiT and ELECTRA).
"""

import re
from typing import Any

from torch import nn

from ..conversion.pretrained import is_mae_vit
from ..models.introspection import get_layer_ids

# Which layer a parameter belongs to, first match wins: (pattern, layer). A block is its number plus one; the head
# and the last norms come after the last block, at scale 1. A parameter that no pattern matches is an error.
EMBEDDINGS, BLOCK, HEAD = "embeddings", "block", "head"

LAYERS = (
    (r"(?:(?:vit|beit)\.)?embeddings\.(?:cls_token|mask_token|position_embeddings)", EMBEDDINGS),
    (r"(?:(?:vit|beit)\.)?embeddings\.patch_embeddings\.projection\.(?:weight|bias)", EMBEDDINGS),
    (r"(?:(?:vit|beit)\.)?layers\.(\d+)\..+", BLOCK),
    (r"(?:(?:vit|beit)\.)?layernorm\.(?:weight|bias)", HEAD),
    (r"(?:beit\.)?pooler\.layernorm\.(?:weight|bias)", HEAD),
    (r"classifier\.(?:weight|bias)", HEAD),
)

# Never decayed, whatever their shape (models_vit.py inherits timm's no_weight_decay: pos_embed and cls_token).
NO_WEIGHT_DECAY = re.compile(r".*embeddings\.(?:cls_token|position_embeddings)")
TOKENS_AND_POSITIONS = r"(?:token|tokens|class_embedding|position_embeddings?|bias_table)(?:\.weight)?$"
MATCH_NOTHING = re.compile(r"$^")
WRAPPER_PREFIX = re.compile(r"(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def strip_wrapper_prefixes(name: str) -> str:
    """A parameter's name without what DDP, FSDP, torch.compile and checkpointing put before it."""
    return WRAPPER_PREFIX.sub("", name)


def get_layer_id(name: str, num_layers: int) -> int:
    """Layer of a parameter: 0 for tokens, positions and patches, i + 1 for block i, `num_layers` + 1 for the head.

    Args:
        name: the parameter's name in a ViT or BEiT classifier of transformers, or in their backbones.
        num_layers: blocks of the encoder.

    Raises:
        ValueError: no pattern of `LAYERS` matches.
    """
    for pattern, kind in LAYERS:
        if found := re.fullmatch(pattern, name):
            return {EMBEDDINGS: 0, HEAD: num_layers + 1}[kind] if kind != BLOCK else int(found.group(1)) + 1
    raise ValueError(
        f"No layer is known for the parameter '{name}': layer-wise lr decay needs a pattern for it in "
        "hf_mae.training.layer_decay.LAYERS (it is never put into the head's group silently)."
    )


def has_weight_decay(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: not to 1-D parameters (biases, norms), class token and position embeddings."""
    return parameter.ndim > 1 and not NO_WEIGHT_DECAY.fullmatch(name)


def parameter_groups(
    model: nn.Module, learning_rate: float, weight_decay: float = 0.05, layer_decay: float = 0.75
) -> list[dict[str, Any]]:
    """Groups for `torch.optim.AdamW`, one for each layer and weight decay, in the order of the parameters.

    Args:
        model: a ViT or BEiT classifier of transformers; the layers of another network are those of
            `models.parts.layers_of`.
        learning_rate: absolute learning rate of the head.
        weight_decay: for the parameters that decay.
        layer_decay: lr of layer i is learning_rate x layer_decay ** (num_layers + 1 - i).

    Returns:
        Dicts with `params`, `lr` (which carries the layer's scale), `lr_scale` and `weight_decay`; frozen parameters
        are in none of them.

    Raises:
        ValueError: a parameter that no layer is known for.
    """
    named = [(strip_wrapper_prefixes(name), p) for name, p in model.named_parameters() if p.requires_grad]
    layers, last = _get_layer_ids(model, [name for name, _ in named])
    spared = _no_weight_decay_pattern(model)
    groups: dict[tuple[int, bool], dict] = {}
    for name, parameter in named:
        layer, decay = layers[name], has_weight_decay(name, parameter) and not spared.search(name)
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
    """The layer of each parameter, and that of the head."""
    if _is_other_architecture(model):
        layers, last = get_layer_ids(model)
        return {strip_wrapper_prefixes(name): layer for name, layer in layers.items()}, last
    blocks = (re.fullmatch(LAYERS[2][0], strip_wrapper_prefixes(name)) for name, _ in model.named_parameters())
    num_layers = 1 + max((int(found.group(1)) for found in blocks if found), default=-1)
    return {name: get_layer_id(name, num_layers) for name in names}, num_layers + 1


def _is_other_architecture(model: nn.Module) -> bool:
    config = getattr(model, "config", None)
    return config is not None and not is_mae_vit(config, "")


def _no_weight_decay_pattern(model: nn.Module) -> re.Pattern[str]:
    """Of another network: its tokens and positions, as timm says or as transformers calls them."""
    if not _is_other_architecture(model):
        return MATCH_NOTHING
    own: set[str] = getattr(getattr(model, "timm_model", None), "no_weight_decay", set)()
    return re.compile("|".join([TOKENS_AND_POSITIONS, *(rf"^timm_model\.{re.escape(name)}$" for name in own)]))


def pretraining_parameter_groups(
    model: nn.Module, learning_rate: float, weight_decay: float = 0.05
) -> list[dict[str, Any]]:
    """Groups of pre-training: no layer decay; biases and norms do not decay, the class and mask tokens do.

    Source: `add_weight_decay` of timm as main_pretrain.py calls it (1-D parameters and biases are exempt). Position
    embeddings are fixed and in no group.
    """
    groups: list[dict[str, Any]] = [
        {"params": [], "lr": learning_rate, "lr_scale": 1.0, "weight_decay": 0.0},
        {"params": [], "lr": learning_rate, "lr_scale": 1.0, "weight_decay": weight_decay},
    ]
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[parameter.ndim > 1]["params"].append(parameter)
    return [group for group in groups if group["params"]]
