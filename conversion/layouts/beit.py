"""BEiT, BEiT v2 and data2vec (vision): ViTs with relative position biases and layer scale, without key bias.

`BeitForImageClassification` computes them exactly. Sources: modeling_finetune.py of microsoft/unilm (beit, beit2), and
the BEiT modules of transformers.
"""

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from ..architecture import MAX_LAYERS, count_blocks
from ..checkpoint import Checkpoint, ConversionPlan, ConversionRequest, Layout, State, Target
from ..facts import BaselineModel, FactCode, fact
from ..heads import resolve_head
from ..messages import ConversionError, ConversionMessage
from .mae import MAE, PATCH_EMBED_KEY, TARGETS, Decisions, plan_head

if TYPE_CHECKING:
    import torch

BIAS_TABLE = "relative_position_bias_table"
SHARED_TABLE = f"rel_pos_bias.{BIAS_TABLE}"
# Mean and std of the images, unless args.imagenet_default_mean_and_std is set.
INCEPTION_MEAN_STD = (0.5, 0.5, 0.5)
SIZE_NAMES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "patch_size", "image_size")
BEIT_TARGET = Target(
    "BeitForImageClassification",
    (
        (SHARED_TABLE, f"beit.shared_position_bias.{BIAS_TABLE}"),
        (f"blocks.{{i}}.attn.{BIAS_TABLE}", f"beit.layers.{{i}}.relative_position_bias.{BIAS_TABLE}"),
        ("blocks.{i}.gamma_1", "beit.layers.{i}.lambda_1"),
        ("blocks.{i}.gamma_2", "beit.layers.{i}.lambda_2"),
        ("blocks.{i}.attn.qkv.weight", "beit.layers.{i}.attention.{q_proj|k_proj|v_proj}.weight"),
        ("blocks.{i}.attn.q_bias", "beit.layers.{i}.attention.q_proj.bias"),
        ("blocks.{i}.attn.v_bias", "beit.layers.{i}.attention.v_proj.bias"),
        *((key, hf_key) for key, hf_key in TARGETS["mean"].keys if ".qkv." not in key),
    ),
    (
        ("norm.{p}", FactCode.NORM_BEFORE_MEAN_POOLING),
        *((key, FactCode.PRETRAINING_ONLY) for key in ("mask_token", "lm_head.{rest}", "cls_pt_layers.{rest}")),
        *((key, FactCode.PRETRAINING_ONLY) for key in ("decoder.{rest}", "regressor.{rest}")),
        ("blocks.{i}.attn.relative_position_index", FactCode.COMPUTED_FROM_IMAGE_SIZE),
        ("rel_pos_bias.relative_position_index", FactCode.COMPUTED_FROM_IMAGE_SIZE),
    ),
    pooling="mean",
)


def has_relative_positions(keys: Collection[str], args: dict[str, Any]) -> bool:
    """Whether a ViT has relative position biases, and no key bias."""
    return "blocks.0.attn.q_bias" in keys and any(key.endswith(BIAS_TABLE) for key in keys)


def make_plan(checkpoint: Checkpoint, request: ConversionRequest) -> ConversionPlan:
    """Plans the conversion to a classifier with mean pooling.

    Raises:
        ConversionError: If the sizes are not supported, or a flag does not apply to BEiT.
    """
    _check_request(checkpoint.source, request)
    sizes = _infer_sizes(checkpoint.state, checkpoint.source)
    if request.image_size not in (None, sizes["image_size"]):
        raise ConversionError(
            ConversionMessage.BEIT_IMAGE_SIZE, source=checkpoint.source, image_size=sizes["image_size"]
        )
    decisions = Decisions(dict(checkpoint.state))
    plan_head(checkpoint, resolve_head(checkpoint, BEIT_TARGET, request.names, request.num_labels), decisions)
    checkpoint.metadata.image_processor = _image_processor(checkpoint, sizes["image_size"])
    from transformers import BeitConfig

    return ConversionPlan(
        checkpoint,
        BEIT_TARGET,
        decisions.state,
        BeitConfig(**sizes, **decisions.config),
        compute_baseline,
        {name: sizes[name] for name in SIZE_NAMES} | {"num_labels": decisions.config["num_labels"]},
        dropped_tensors=decisions.dropped_tensors,
        init_reasons=decisions.init_reasons,
    )


def _check_request(source: str, request: ConversionRequest) -> None:
    if request.num_attention_heads is not None or request.norm_pix_loss:
        flag = "--norm_pix_loss" if request.norm_pix_loss else "--num_attention_heads"
        raise ConversionError(ConversionMessage.BEIT_FLAG, flag=flag, source=source)
    if request.to not in ("auto", "classifier") or request.pooling == "cls":
        raise ConversionError(ConversionMessage.BEIT_TARGET, source=source)


def _infer_sizes(state: State, source: str) -> dict[str, Any]:
    """Infers the arguments of `BeitConfig` from the parameter shapes."""
    table = SHARED_TABLE if SHARED_TABLE in state else f"blocks.0.attn.{BIAS_TABLE}"
    if missing := [name for name in (table, "blocks.0.mlp.fc1.bias") if name not in state]:
        raise ConversionError(
            ConversionMessage.PARAMETERS_MISSING, source=source, layout=BEIT.title, count=len(missing), names=missing
        )
    width, channels, patch, patch_width = state[PATCH_EMBED_KEY].shape
    rows, heads = state[table].shape
    depth = count_blocks(state, "blocks")
    side = (math.isqrt(max(rows - 3, 0)) + 1) // 2  # (2 side - 1)^2 distances, and three for the class token
    if (2 * side - 1) ** 2 + 3 != rows or patch != patch_width or width % heads or channels != 3 or depth > MAX_LAYERS:
        raise ConversionError(ConversionMessage.BEIT_SIZES_UNSUPPORTED, source=source)
    return {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": state["blocks.0.mlp.fc1.bias"].shape[0],
        "patch_size": patch,
        "image_size": side * patch,
        "layer_norm_eps": 1e-6,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "use_relative_position_bias": table != SHARED_TABLE,
        "use_shared_relative_position_bias": table == SHARED_TABLE,
        "use_absolute_position_embeddings": "pos_embed" in state,
        "use_mean_pooling": True,
        "use_mask_token": False,
        "layer_scale_init_value": 0.1 if "blocks.0.gamma_1" in state else 0.0,  # on or off; the weights have the values
    }


def _image_processor(checkpoint: Checkpoint, image_size: int) -> dict[str, Any]:
    """Returns the evaluation preprocessing of BEiT: resize the shorter side to 256/224 of the size, then crop."""
    from ..preprocessing import IMAGENET_MEAN, IMAGENET_STD, mae_image_processor

    imagenet = checkpoint.metadata.imagenet_mean_and_std
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if imagenet else (INCEPTION_MEAN_STD, INCEPTION_MEAN_STD)
    if not imagenet:
        checkpoint.notes.append(fact(FactCode.MEAN_AND_STD_OF_BEIT))
    processor: dict[str, Any] = mae_image_processor(image_size, mean, std).to_dict()
    return processor


def compute_baseline(
    state: State, pixel_values: "torch.Tensor", noise: "torch.Tensor"
) -> "tuple[BaselineModel, torch.Tensor]":
    """Computes the logits with timm's Beit of the same parameters."""
    from timm.models.beit import Beit

    sizes = _infer_sizes(state, "")
    model = Beit(
        img_size=sizes["image_size"],
        patch_size=sizes["patch_size"],
        embed_dim=sizes["hidden_size"],
        depth=sizes["num_hidden_layers"],
        num_heads=sizes["num_attention_heads"],
        mlp_ratio=sizes["intermediate_size"] / sizes["hidden_size"],
        use_abs_pos_emb=sizes["use_absolute_position_embeddings"],
        use_rel_pos_bias=sizes["use_relative_position_bias"],
        use_shared_rel_pos_bias=sizes["use_shared_relative_position_bias"],
        init_values=0.1 if sizes["layer_scale_init_value"] else None,
        num_classes=len(state["head.weight"]),
    ).eval()
    buffers = model.state_dict()
    model.load_state_dict(buffers | {name: tensor for name, tensor in state.items() if name in buffers})
    logits: torch.Tensor = model(pixel_values)
    return BaselineModel.TIMM, logits


BEIT = Layout(
    name="beit",
    title="BEiT, BEiT v2 and data2vec (vision)",
    anchor=MAE.anchor,
    condition=has_relative_positions,
    targets=(BEIT_TARGET,),
    plan=make_plan,
)
