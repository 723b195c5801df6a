"""facebookresearch/mae, timm's ViT, and the programs that build on them.

Sources: `models_mae.py` and `models_vit.py` of facebookresearch/mae, and the modules of transformers' ViT, BEiT and
ViTMAE. Only the fused `qkv` changes its shape: transformers has three projections.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from ..architecture import (
    BLOCK_KEYS,
    DECODER_KEYS,
    EMBEDDING_KEYS,
    Architecture,
    infer_patch_grid,
    read_architecture,
    transformers_config,
    without_decoder,
)
from ..checkpoint import Checkpoint, ConversionPlan, ConversionRequest, Layout, State, Target
from ..facts import BaselineModel, Fact, FactCode, fact
from ..heads import Head, resolve_head
from ..messages import ConversionError, ConversionMessage

if TYPE_CHECKING:
    import torch

PATCH_EMBED_KEY = "patch_embed.proj.weight"
PROBE_EPS = 1e-6  # main_linprobe.py: BatchNorm1d(width, affine=False, eps=1e-6)


def encoder_keys(prefix: str) -> tuple[tuple[str, str], ...]:
    """Returns the keys of the encoder, with a prefix of the stock class."""
    keys = EMBEDDING_KEYS + tuple((f"blocks.{mae_key}", f"layers.{hf_key}") for mae_key, hf_key in BLOCK_KEYS)
    return tuple((mae_key, prefix + hf_key) for mae_key, hf_key in keys)


UNUSED_DECODER = tuple((key, FactCode.DECODER) for key, _ in DECODER_KEYS)
# `--to` or `--pooling` -> stock class; an unused key has the reason of its first matching pattern.
TARGETS = {
    "pretraining": Target(
        "ViTMAEForPreTraining",
        (*encoder_keys("vit."), ("norm.{p}", "vit.layernorm.{p}"), *DECODER_KEYS),
        (
            ("fc_norm.{p}", FactCode.POOLING_NORM_OF_CLASSIFIER),
            ("head.{p}", FactCode.HEAD_OF_CLASSIFIER),
        ),
    ),
    "cls": Target(
        "ViTForImageClassification",
        (*encoder_keys("vit."), ("norm.{p}", "vit.layernorm.{p}"), ("head.{p}", "classifier.{p}")),
        (("fc_norm.{p}", FactCode.NORM_OF_MEAN_POOLING), *UNUSED_DECODER),
        pooling="cls",
    ),
    "mean": Target(
        "BeitForImageClassification",
        (
            ("blocks.{i}.attn.qkv.bias", "beit.layers.{i}.attention.{q_proj||v_proj}.bias"),
            *encoder_keys("beit."),
            ("fc_norm.{p}", "beit.pooler.layernorm.{p}"),
            ("head.{p}", "classifier.{p}"),
        ),
        (
            ("norm.{p}", FactCode.NORM_BEFORE_MEAN_POOLING),
            *UNUSED_DECODER,
        ),
        pooling="mean",
    ),
    "backbone": Target(
        "ViTModel",
        (*encoder_keys(""), ("norm.{p}", "layernorm.{p}")),
        (
            ("fc_norm.{p}", FactCode.POOLING_NORM_OF_CLASSIFIER),
            ("head.{p}", FactCode.HEAD_OF_CLASSIFIER),
            *UNUSED_DECODER,
        ),
    ),
}
NEW_NORM_REASONS = {"fc_norm": fact(FactCode.NEW_FC_NORM), "norm": fact(FactCode.NEW_NORM)}
NEW_DECODER_REASONS = {key.split(".")[0]: fact(FactCode.NO_DECODER) for key, _ in DECODER_KEYS}


def canonicalize(checkpoint: Checkpoint) -> State:
    """Folds the batch norm of a linear probe, and adds a missing row of the position embeddings."""
    state = _fold_batch_norm(checkpoint.state, checkpoint.source, checkpoint.notes)
    return _add_class_token_position(state, checkpoint)


def _fold_batch_norm(state: State, source: str, notes: list[Fact]) -> State:
    """Folds the batch norm (without weights) of a linear probe into its linear layer."""
    if "head.0.running_mean" not in state or "head.1.weight" not in state:
        return state
    if "head.0.weight" in state:
        raise ConversionError(ConversionMessage.BATCH_NORM_UNSUPPORTED, source=source)
    probe = {name: tensor for name, tensor in state.items() if name.startswith("head.")}
    mean, variance = probe["head.0.running_mean"].double(), probe["head.0.running_var"].double()
    weight = probe["head.1.weight"].double() / (variance + PROBE_EPS).sqrt()
    bias = probe["head.1.bias"].double() - weight @ mean
    notes.append(fact(FactCode.LINEAR_PROBE_FOLDED))
    other_parameters = {name: tensor for name, tensor in state.items() if name not in probe}
    return other_parameters | {"head.weight": weight.float(), "head.bias": bias.float()}


def _add_class_token_position(state: State, checkpoint: Checkpoint) -> State:
    """Adds a row of zeros for the class token to position embeddings without one (timm's `no_embed_class`)."""
    import torch

    positions = state.get("pos_embed")
    if positions is None:  # read_architecture reports missing parameters
        return state
    patch_size, image_size = state[PATCH_EMBED_KEY].shape[-2:], checkpoint.metadata.image_size
    if infer_patch_grid(positions.shape[1], patch_size, image_size, checkpoint.source).has_class_token:
        return state
    checkpoint.notes.append(fact(FactCode.CLASS_TOKEN_POSITION_ADDED))
    return state | {"pos_embed": torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)}


@dataclass
class Decisions:
    """Parts of a plan, while it is made; the fields are those of `ConversionPlan`."""

    state: State
    config: dict[str, Any] = field(default_factory=dict)  # without the sizes
    dropped_tensors: list[dict[str, Any]] = field(default_factory=list)
    init_reasons: dict[str, Fact] = field(default_factory=lambda: dict(NEW_NORM_REASONS))


def make_plan(checkpoint: Checkpoint, request: ConversionRequest) -> ConversionPlan:
    """Plans the conversion to ViTMAE, ViT, or BEiT with mean pooling."""
    name = _choose_target(checkpoint, request)
    target = TARGETS[name]
    architecture = _read_target_architecture(checkpoint, name, request)
    source_config = checkpoint.metadata.config if checkpoint.metadata.pooling == name else None
    decisions = Decisions(dict(checkpoint.state), dict(source_config or {}))
    if target.pooling:
        plan_head(checkpoint, resolve_head(checkpoint, target, request.names, request.num_labels), decisions)
    _plan_pretraining(checkpoint, name, architecture, request, decisions)
    if request.image_size and (request.image_size, request.image_size) != architecture.height_width:
        _set_image_size(decisions.state, architecture, request.image_size, checkpoint)
    return ConversionPlan(
        checkpoint,
        target,
        decisions.state,
        transformers_config(architecture, name, **decisions.config),
        partial(compute_baseline, architecture, name, decisions.config.get("mask_ratio")),
        architecture.encoder_config_kwargs() | {"num_labels": decisions.config.get("num_labels")},
        architecture.assumed,
        decisions.dropped_tensors,
        decisions.init_reasons,
    )


def _choose_target(checkpoint: Checkpoint, request: ConversionRequest) -> str:
    """Returns the key of `TARGETS` for the requested and the available parts."""
    state, to, pooling = checkpoint.state, request.to, request.pooling
    has_head, has_decoder = "head.weight" in state, "decoder_pred.weight" in state
    if to == "auto":
        has_labels = bool(request.names or request.num_labels)
        to = "classifier" if has_labels or has_head else "pretraining" if has_decoder else "backbone"
    if to != "classifier":
        if pooling != "auto":
            raise ConversionError(ConversionMessage.POOLING_WITHOUT_CLASSIFIER, pooling=pooling, target=to)
        return to
    if pooling == "auto":
        return "cls" if has_head and "fc_norm.weight" not in state else "mean"
    return pooling


def _read_target_architecture(checkpoint: Checkpoint, target: str, request: ConversionRequest) -> Architecture:
    """Reads the architecture of the parameters that the target uses, and notes assumed values."""
    state = checkpoint.state
    if target != "pretraining":  # an unused decoder may have any architecture
        state = without_decoder(state)
    elif unknown := [name for name in state if name.startswith("decoder") and not MAE.is_known(name)]:
        raise ConversionError(ConversionMessage.DECODER_UNSUPPORTED, source=checkpoint.source, names=unknown[:3])
    architecture = read_architecture(
        state,
        checkpoint.metadata,
        num_attention_heads=request.num_attention_heads,
        decoder_num_attention_heads=request.decoder_num_attention_heads,
        source=checkpoint.source,
    )
    checkpoint.notes += [fact(FactCode.ASSUMED, name=name, value=value) for name, value in architecture.assumed.items()]
    return architecture


def plan_head(checkpoint: Checkpoint, head: Head, decisions: Decisions) -> None:
    """Plans the classes of a classifier, and whether the head of the checkpoint is kept or replaced."""
    state = decisions.state
    if head.reset_reason:
        decisions.init_reasons["head"] = head.reset_reason
    if head.reset_reason and "head.weight" in state:
        decisions.dropped_tensors = [
            {"source": name, "reason": head.reset_reason} for name in ("head.weight", "head.bias") if name in state
        ]
        decisions.state = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
        checkpoint.notes.append(head.reset_reason)
    checkpoint.notes += head.notes
    decisions.config["num_labels"] = head.num_labels
    if names := head.names:
        decisions.config |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


def _plan_pretraining(
    checkpoint: Checkpoint, target: str, architecture: Architecture, request: ConversionRequest, decisions: Decisions
) -> None:
    """Plans the mask ratio and the pixel loss of pre-training, from the flag or the checkpoint."""
    recorded, norm_pix_loss = checkpoint.metadata.norm_pix_loss, request.norm_pix_loss
    if target != "pretraining":
        if norm_pix_loss:
            raise ConversionError(ConversionMessage.NORM_PIX_LOSS_WITHOUT_DECODER)
        return
    if None not in (norm_pix_loss, recorded) and norm_pix_loss != recorded:
        raise ConversionError(
            ConversionMessage.NORM_PIX_LOSS_CONTRADICTS,
            value=str(norm_pix_loss).lower(),
            source=checkpoint.source,
            recorded=str(recorded).lower(),
        )
    if norm_pix_loss is None:
        norm_pix_loss = recorded
    if not architecture.has_decoder:
        decisions.init_reasons |= NEW_DECODER_REASONS
    elif norm_pix_loss is None:
        architecture.assumed["norm_pix_loss"] = False
        checkpoint.notes.append(fact(FactCode.NORM_PIX_LOSS_ASSUMED))
    mask_ratio = checkpoint.metadata.mask_ratio
    decisions.config |= {"norm_pix_loss": bool(norm_pix_loss), "mask_ratio": 0.75 if mask_ratio is None else mask_ratio}


def _set_image_size(state: State, architecture: Architecture, image_size: int, checkpoint: Checkpoint) -> None:
    if image_size % architecture.patch_size:
        raise ConversionError(
            ConversionMessage.IMAGE_SIZE_NOT_DIVISIBLE, image_size=image_size, patch_size=architecture.patch_size
        )
    for name in ("pos_embed", "decoder_pos_embed"):
        if name in state:
            state[name] = resize_position_embeddings(
                state[name], image_size // architecture.patch_size, architecture.grid_size
            )
    checkpoint.notes.append(fact(FactCode.POSITIONS_RESIZED, old=architecture.image_size, new=image_size))
    architecture.image_size = image_size


def resize_position_embeddings(
    positions: "torch.Tensor", new_grid_size: int, old_grid_size: tuple[int, int]
) -> "torch.Tensor":
    """Resizes (1, 1 + patches, width) position embeddings from `old_grid_size` to a square grid (bicubic).

    The row of the class token is unchanged. Equals `interpolate_pos_embed` of the original code (util/pos_embed.py).
    """
    import torch

    token, patches = positions[:, :1], positions[:, 1:]
    patches = patches.reshape(1, *old_grid_size, -1).permute(0, 3, 1, 2)
    patches = torch.nn.functional.interpolate(
        patches, size=(new_grid_size, new_grid_size), mode="bicubic", align_corners=False
    )
    return torch.cat([token, patches.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def compute_baseline(
    architecture: Architecture,
    target: str,
    mask_ratio: float | None,
    state: State,
    pixel_values: "torch.Tensor",
    noise: "torch.Tensor",
) -> "tuple[BaselineModel, torch.Tensor]":
    """Computes outputs with timm's VisionTransformer, or for pre-training with a reimplementation of the original."""
    if mask_ratio is not None:
        from ..mae_forward import compute_pretraining

        outputs = compute_pretraining(state, architecture, pixel_values, noise, mask_ratio)
        return BaselineModel.FACEBOOKRESEARCH_MAE, outputs
    from timm.models.vision_transformer import VisionTransformer
    from torch import nn

    from ..timm_layout import timm_model_args

    model = VisionTransformer(
        **timm_model_args(architecture),
        num_classes=0 if target == "backbone" else len(state["head.weight"]),
        global_pool="avg" if target == "mean" else "token",
        norm_layer=partial(nn.LayerNorm, eps=architecture.layer_norm_eps),
    ).eval()
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    output: torch.Tensor = model.forward_features(pixel_values) if target == "backbone" else model(pixel_values)
    return BaselineModel.TIMM, output


MAE = Layout(
    name="mae",
    title="ViT of facebookresearch/mae, timm, DeiT, DINO, iBOT, MoCo v3, and of programs that build on them",
    anchor=r"patch_embed\.proj\.weight",
    targets=tuple(TARGETS.values()),
    canonicalize=canonicalize,
    plan=make_plan,
)
