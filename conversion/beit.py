"""Converts checkpoints of BEiT, BEiT v2 and data2vec (vision) to `BeitForImageClassification` of transformers.

These models are ViTs with relative position biases and layer scale, without key bias. The stock class computes them
exactly. Sources: modeling_finetune.py of microsoft/unilm (beit, beit2), and the BEiT modules of transformers.
"""

import math
import re
from typing import Any

import torch

from .canonicalize import cast_to_float32, check_tensor_types, check_weights_finite
from .checkpoint import Checkpoint
from .errors import ConversionError
from .heads import Head, resolve_classes
from .initialization import initial_value
from .key_mapping import QKV
from .messages import ConversionMessage
from .report import ConversionReport
from .safety import MAX_LAYERS, check_tensor_storage

BIAS_TABLE = "relative_position_bias_table"
# Mean and std of the images, unless args.imagenet_default_mean_and_std is set.
INCEPTION_MEAN_STD = (0.5, 0.5, 0.5)
PARAMETER_SUFFIXES = ("weight", "bias")
# Key in the source -> key in transformers; `{i}` is a block number, `{p}` is `weight` or `bias`.
BEIT_KEY_MAPPING = (
    ("cls_token", "beit.embeddings.cls_token"),
    ("pos_embed", "beit.embeddings.position_embeddings"),
    ("patch_embed.proj.{p}", "beit.embeddings.patch_embeddings.projection.{p}"),
    (f"rel_pos_bias.{BIAS_TABLE}", f"beit.shared_position_bias.{BIAS_TABLE}"),
    ("blocks.{i}.gamma_1", "beit.layers.{i}.lambda_1"),
    ("blocks.{i}.gamma_2", "beit.layers.{i}.lambda_2"),
    ("blocks.{i}.norm1.{p}", "beit.layers.{i}.layernorm_before.{p}"),
    ("blocks.{i}.norm2.{p}", "beit.layers.{i}.layernorm_after.{p}"),
    ("blocks.{i}.attn.q_bias", "beit.layers.{i}.attention.q_proj.bias"),
    ("blocks.{i}.attn.v_bias", "beit.layers.{i}.attention.v_proj.bias"),
    (f"blocks.{{i}}.attn.{BIAS_TABLE}", f"beit.layers.{{i}}.relative_position_bias.{BIAS_TABLE}"),
    ("blocks.{i}.attn.proj.{p}", "beit.layers.{i}.attention.o_proj.{p}"),
    ("blocks.{i}.mlp.fc1.{p}", "beit.layers.{i}.mlp.fc1.{p}"),
    ("blocks.{i}.mlp.fc2.{p}", "beit.layers.{i}.mlp.fc2.{p}"),
    ("fc_norm.{p}", "beit.pooler.layernorm.{p}"),
    ("head.{p}", "classifier.{p}"),
)
UNUSED_KEY_PATTERNS = (
    (r"norm\.", "mean pooling normalises the pooled patches (fc_norm) instead"),
    (r"mask_token|lm_head\.|cls_pt_layers\.|decoder\.|regressor\.", "used in pre-training only"),
    (r".*relative_position_index", "computed from the image size"),
)
State = dict[str, torch.Tensor]


def convert_beit_to_model(
    checkpoint: Checkpoint,
    names: list[str] | None,
    num_labels: int | None,
    image_size: int | None,
    verify: bool,
    generator: torch.Generator | None = None,
) -> tuple[Any, ConversionReport]:
    """Builds a `BeitForImageClassification` with mean pooling, and the report of the conversion.

    Args:
        checkpoint: a checkpoint for which `layouts.is_beit` is true.
        names, num_labels: the classes; a head for other classes is replaced by a new one.
        image_size: pixels; only the size of the checkpoint is supported.
        verify: compare the model with timm's Beit on random input.
        generator: random numbers for a new head.

    Raises:
        ConversionError: If the checkpoint is damaged or has unknown parameters, or the image size differs.
    """
    from transformers import BeitConfig, BeitForImageClassification

    source = checkpoint.source
    state = _select_parameters(checkpoint)
    config_kwargs = _infer_config_kwargs(state, source)
    if image_size not in (None, config_kwargs["image_size"]):
        raise ConversionError(ConversionMessage.BEIT_IMAGE_SIZE, source=source, image_size=config_kwargs["image_size"])
    head = resolve_classes(checkpoint, names, num_labels)
    if head.reset_reason:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    labels = (
        {"id2label": dict(enumerate(head.names)), "label2id": {n: i for i, n in enumerate(head.names)}}
        if head.names
        else {"num_labels": head.num_labels}
    )
    with torch.device("meta"):
        model = BeitForImageClassification(BeitConfig(**config_kwargs, **labels))
    tensors, mapping = _map_parameters(state, source)
    initialized = _initialize_missing(tensors, model, head, source, generator)
    model.load_state_dict(tensors, assign=True)
    checkpoint.metadata.image_processor = _build_image_processor(checkpoint, config_kwargs["image_size"])
    report = _build_report(checkpoint, config_kwargs, head, mapping, initialized)
    if verify:
        report.verification = _verify_against_timm(model, config_kwargs, state, head.num_labels)
    return model.requires_grad_(True), report


def _select_parameters(checkpoint: Checkpoint) -> State:
    """Returns the parameters in float32; adds unused parameters to `checkpoint.unused`."""
    state = {}
    for name, tensor in checkpoint.state.items():
        reasons = (reason for pattern, reason in UNUSED_KEY_PATTERNS if re.match(pattern, name))
        if reason := next(reasons, None):
            checkpoint.unused.append({"source": name, "reason": reason})
        else:
            state[name] = tensor
    check_tensor_types(state, checkpoint.source, lambda _: True)
    check_tensor_storage(state, checkpoint.source)
    check_weights_finite(state, checkpoint.source)
    if unknown := [name for name in state if _transformers_key(name) is None and not name.endswith("attn.qkv.weight")]:
        raise ConversionError(
            ConversionMessage.BEIT_PARAMETERS_UNKNOWN, source=checkpoint.source, names=sorted(unknown)[:3]
        )
    return cast_to_float32(state, checkpoint.notes)


def _transformers_key(name: str) -> str | None:
    """Returns the key in transformers, or None for an unknown parameter."""
    for source_key, target_key in BEIT_KEY_MAPPING:
        pattern = re.escape(source_key).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\{p\}", "(?P<p>weight|bias)")
        if match := re.fullmatch(pattern, name):
            return target_key.format(**match.groupdict())
    return None


def _infer_config_kwargs(state: State, source: str) -> dict[str, Any]:
    """Infers the arguments of `BeitConfig` from the parameter shapes."""
    width, channels, patch, patch_width = _get_shape(state, "patch_embed.proj.weight", 4, source)
    depth = 1 + max(int(match.group(1)) for name in state if (match := re.match(r"blocks\.(\d+)\.", name)))
    shared = f"rel_pos_bias.{BIAS_TABLE}" in state
    rows, heads = _get_shape(
        state, f"rel_pos_bias.{BIAS_TABLE}" if shared else f"blocks.0.attn.{BIAS_TABLE}", 2, source
    )
    (inner,) = _get_shape(state, "blocks.0.mlp.fc1.bias", 1, source)
    side = (math.isqrt(max(rows - 3, 0)) + 1) // 2  # (2 side - 1)^2 distances, and three for the class token
    if (2 * side - 1) ** 2 + 3 != rows or patch != patch_width or width % heads or channels != 3 or depth > MAX_LAYERS:
        raise ConversionError(ConversionMessage.BEIT_SIZES_UNSUPPORTED, source=source)
    return {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "patch_size": patch,
        "image_size": side * patch,
        "layer_norm_eps": 1e-6,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "use_relative_position_bias": not shared,
        "use_shared_relative_position_bias": shared,
        "use_absolute_position_embeddings": "pos_embed" in state,
        "use_mean_pooling": True,
        "use_mask_token": False,
        "layer_scale_init_value": 0.1 if "blocks.0.gamma_1" in state else 0.0,  # on or off; the weights have the values
    }


def _get_shape(state: State, name: str, ndim: int, source: str) -> tuple[int, ...]:
    """Returns the shape of a required, non-empty parameter with `ndim` dimensions."""
    if name not in state:
        raise ConversionError(ConversionMessage.BEIT_PARAMETER_MISSING, source=source, name=name)
    shape = tuple(state[name].shape)
    if len(shape) != ndim or not state[name].numel():
        raise ConversionError(ConversionMessage.DIMENSIONS_WRONG, source=source, name=name, shape=shape, expected=ndim)
    return shape


def _map_parameters(state: State, source: str) -> tuple[State, list[dict[str, Any]]]:
    tensors: State = {}
    mapping = []
    for name, tensor in state.items():
        if name.endswith("attn.qkv.weight"):
            block = name.split(".")[1]
            targets = [f"beit.layers.{block}.attention.{part}.weight" for part in QKV]
            rows, _ = _get_shape(state, name, 2, source)
            if rows % 3:
                raise ConversionError(ConversionMessage.BEIT_QKV_NOT_DIVISIBLE, source=source, name=name, rows=rows)
            tensors |= {target: part.clone() for target, part in zip(targets, tensor.chunk(3), strict=True)}
        else:
            targets = [str(_transformers_key(name))]
            tensors[targets[0]] = tensor
        mapping.append({"source": name, "target": targets})
    return tensors, mapping


def _initialize_missing(
    tensors: State, model: Any, head: Head, source: str, generator: torch.Generator | None
) -> list[dict[str, Any]]:
    """Adds initial values for a new head and for the norm of mean pooling; any other missing parameter is an error."""
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    if wrong := [name for name, tensor in tensors.items() if name not in shapes or tensor.shape != shapes[name]]:
        raise ConversionError(
            ConversionMessage.BEIT_SHAPE_INCONSISTENT,
            source=source,
            name=wrong[0],
            shape=tuple(tensors[wrong[0]].shape),
        )
    reasons = {
        "head": f"{head.reset_reason}; truncated normal, std 2e-5",
        "fc_norm": "the norm of mean pooling is initialized with weight 1 and bias 0",
    }
    initializable = {
        _transformers_key(f"{part}.{p}"): (f"{part}.{p}", reason)
        for part, reason in reasons.items()
        for p in PARAMETER_SUFFIXES
    }
    initialized = []
    for name in sorted(shapes.keys() - tensors.keys()):
        if name not in initializable:
            raise ConversionError(ConversionMessage.BEIT_PARAMETER_MISSING, source=source, name=name)
        source_key, reason = initializable[name]
        tensors[name] = initial_value(source_key, tuple(shapes[name]), generator)
        initialized.append({"target": name, "reason": reason})
    return initialized


def _build_image_processor(checkpoint: Checkpoint, image_size: int) -> dict[str, Any]:
    """Builds the evaluation preprocessing of BEiT: resize the shorter side to 256/224 of the size, then centre crop."""
    from .preprocessing import IMAGENET_MEAN, IMAGENET_STD, mae_image_processor

    imagenet = checkpoint.metadata.imagenet_mean_and_std
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if imagenet else (INCEPTION_MEAN_STD, INCEPTION_MEAN_STD)
    if not imagenet:
        checkpoint.notes.append(
            "images are normalized with mean and std 0.5, as in BEiT (--mean_std 0.5 0.5 0.5 0.5 0.5 0.5)"
        )
    processor: dict[str, Any] = mae_image_processor(image_size, mean, std).to_dict()
    return processor


def _build_report(
    checkpoint: Checkpoint,
    config_kwargs: dict[str, Any],
    head: Head,
    mapping: list[dict[str, Any]],
    initialized: list[dict[str, Any]],
) -> ConversionReport:
    from importlib.metadata import version

    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "patch_size", "image_size")
    dropped = [
        {"source": name, "reason": f"{head.reset_reason}; replaced by a new head"}
        for name in ("head.weight", "head.bias")
        if head.reset_reason and name in checkpoint.state
    ]
    return ConversionReport(
        source={"name": checkpoint.source, "layout": f"{checkpoint.layout}, BEiT"}
        | {"size": checkpoint.size, "sha256": checkpoint.sha256},
        target={"class": "BeitForImageClassification", "pooling": "mean"}
        | {name: config_kwargs[name] for name in names}
        | {"num_labels": head.num_labels},
        mapping=mapping,
        unused=dropped + checkpoint.unused,
        initialized=initialized,
        notes=checkpoint.notes + head.notes,
        image_processor=checkpoint.metadata.image_processor,
        versions={name: version(name) for name in ("torch", "transformers", "safetensors")},
    )


@torch.no_grad()
def _verify_against_timm(model: Any, config_kwargs: dict[str, Any], state: State, num_labels: int) -> dict[str, Any]:
    """Compares the model with timm's Beit that has the same parameters, on random input."""
    from timm.models.beit import Beit

    from .verification import compare_outputs, compute_outputs

    timm_model = Beit(
        img_size=config_kwargs["image_size"],
        patch_size=config_kwargs["patch_size"],
        embed_dim=config_kwargs["hidden_size"],
        depth=config_kwargs["num_hidden_layers"],
        num_heads=config_kwargs["num_attention_heads"],
        mlp_ratio=config_kwargs["intermediate_size"] / config_kwargs["hidden_size"],
        use_abs_pos_emb=config_kwargs["use_absolute_position_embeddings"],
        use_rel_pos_bias=config_kwargs["use_relative_position_bias"],
        use_shared_rel_pos_bias=config_kwargs["use_shared_relative_position_bias"],
        init_values=0.1 if config_kwargs["layer_scale_init_value"] else None,
        num_classes=num_labels,
    ).eval()
    converted = model.state_dict()
    initialized = {
        name: converted[str(_transformers_key(name))]
        for name in timm_model.state_dict()
        if name not in state and _transformers_key(name) is not None
    }
    timm_model.load_state_dict(timm_model.state_dict() | state | initialized)
    size = config_kwargs["image_size"]
    pixel_values = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    return compare_outputs(compute_outputs(model, "mean", pixel_values), timm_model(pixel_values), "timm's Beit")
