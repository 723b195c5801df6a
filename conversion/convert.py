"""Converts a checkpoint to a stock transformers model, with a report on every tensor."""

from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from hf_mae.compat.accelerate import skip_deepspeed_import
from hf_mae.files.atomic import apply_umask, atomic_write_dir, write_json

from .architecture import Architecture, read_architecture, transformers_config
from .beit import convert_beit_to_model
from .checkpoint import Checkpoint, read_checkpoint
from .errors import ConversionError
from .heads import resolve_head
from .initialization import initial_value
from .key_mapping import MODEL_CLASSES, MappedStateDict, is_mae_key, to_mae_state_dict, to_transformers_state_dict
from .labels import read_labels
from .layouts import WEIGHTS_CHOICES, is_beit
from .messages import ConversionMessage
from .preprocessing import PROCESSOR_CHOICES, write_image_processor
from .report import REPORT_FILE, ConversionReport
from .verification import verify_against_source

TARGET_CHOICES = ("auto", "pretraining", "classifier", "backbone")
POOLING_CHOICES = ("auto", "mean", "cls")


def resize_position_embeddings(
    positions: torch.Tensor, new_grid_size: int, old_grid_size: tuple[int, int]
) -> torch.Tensor:
    """Resizes (1, 1 + patches, width) position embeddings from `old_grid_size` to a square grid (bicubic).

    The row of the class token is unchanged. Equals `interpolate_pos_embed` of the original code (util/pos_embed.py).
    """
    token, patches = positions[:, :1], positions[:, 1:]
    patches = patches.reshape(1, *old_grid_size, -1).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, size=(new_grid_size, new_grid_size), mode="bicubic", align_corners=False)
    return torch.cat([token, patches.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def _choose_target(checkpoint: Checkpoint, to: str, pooling: str, has_labels: bool) -> str:
    """Returns the target (a key of `key_mapping.KEY_MAPPINGS`) for the requested and the available parts."""
    state = checkpoint.state
    has_head, has_decoder = "head.weight" in state, "decoder_pred.weight" in state
    if to == "auto":
        to = "classifier" if has_labels or has_head else "pretraining" if has_decoder else "backbone"
    if to != "classifier":
        if pooling != "auto":
            raise ConversionError(ConversionMessage.POOLING_WITHOUT_CLASSIFIER, pooling=pooling, target=to)
        return to
    if pooling == "auto":
        return "cls" if has_head and "fc_norm.weight" not in state else "mean"
    return pooling


def _initialize_missing(
    mapped_state: MappedStateDict,
    target: str,
    shapes: dict[str, torch.Size],
    init_reasons: dict[str, str],
    generator: Any,
) -> list[dict[str, Any]]:
    """Adds initial values for the parameters that the source lacks, and returns an entry of the report for each."""
    missing = {
        name: torch.empty(shape, device="meta") for name, shape in shapes.items() if name not in mapped_state.tensors
    }
    mae_state, _ = to_mae_state_dict(missing, target)
    values = {name: initial_value(name, tuple(tensor.shape), generator) for name, tensor in mae_state.items()}
    initialized = to_transformers_state_dict(values, target)
    mapped_state.tensors.update(initialized.tensors)
    init_reasons = {
        "fc_norm": "the norm of mean pooling is initialized with weight 1 and bias 0, as in the original code",
        "norm": "the checkpoint was fine-tuned with mean pooling and lacks it; initialized with weight 1 and bias 0",
    } | init_reasons
    return [
        {"target": name, "reason": init_reasons.get(entry["source"].split(".")[0], "the checkpoint has no decoder")}
        for entry in initialized.mapping
        for name in entry["target"]
    ]


@dataclass
class _ConversionPlan:
    """The decisions of a conversion, before the model is built."""

    checkpoint: Checkpoint
    target: str  # a key of `key_mapping.KEY_MAPPINGS`
    architecture: Architecture
    state: dict[str, torch.Tensor]  # the parameters to use, under their original names
    config: dict[str, Any]  # fields of the model's configuration, without the sizes
    # {"source", "reason"} of tensors that are replaced
    dropped_tensors: list[dict[str, Any]] = field(default_factory=list)
    init_reasons: dict[str, str] = field(default_factory=dict)  # module -> reason for its initial values


def convert_to_model(
    source: str | Path,
    *,
    to: str = "auto",
    pooling: str = "auto",
    num_labels: int | None = None,
    labels: str | Path | list[str] | None = None,
    image_size: int | None = None,
    num_attention_heads: int | None = None,
    decoder_num_attention_heads: int | None = None,
    norm_pix_loss: bool | None = None,
    weights: str | None = None,
    verify: bool = False,
    generator: torch.Generator | None = None,
    **config: Any,
) -> tuple[Any, ConversionReport]:
    """Builds a stock transformers model in memory from any source of `read_checkpoint`.

    Unchanged parameters are views of the memory-mapped source. `convert_checkpoint` documents the other arguments.

    Args:
        generator: random numbers for a new head.
        config: additional fields of the model's configuration.

    Returns:
        The model (training mode, CPU, float32) and its `ConversionReport`.
    """
    _check_choice("to", to, TARGET_CHOICES)
    _check_choice("pooling", pooling, POOLING_CHOICES)
    if weights is not None:
        _check_choice("weights", weights, WEIGHTS_CHOICES)
    checkpoint = read_checkpoint(source, weights=weights)
    names = read_labels(labels) if labels is not None else None
    if is_beit(checkpoint.state):
        _check_beit_options(checkpoint.source, to, pooling, num_attention_heads, norm_pix_loss)
        return convert_beit_to_model(checkpoint, names, num_labels, image_size, verify, generator)
    target = _choose_target(checkpoint, to, pooling, bool(names or num_labels))
    architecture = _read_target_architecture(checkpoint, target, num_attention_heads, decoder_num_attention_heads)
    source_config = checkpoint.metadata.config if checkpoint.metadata.pooling == target else None
    plan = _ConversionPlan(checkpoint, target, architecture, dict(checkpoint.state), (source_config or {}) | config)
    if target in ("cls", "mean"):
        _plan_head(plan, names, num_labels)
    _plan_pixel_loss(plan, norm_pix_loss)
    if image_size and (image_size, image_size) != architecture.height_width:
        _set_image_size(plan.state, architecture, image_size, checkpoint)
    model, mapped_state, initialized = _build_model(plan, generator)
    report = _build_report(plan, mapped_state, initialized)
    if verify:
        state = plan.state | _initialized_mae_parameters(model, target, plan.state)
        report.verification = verify_against_source(model, state, architecture, target, checkpoint)
    report.source |= {"size": checkpoint.size, "sha256": checkpoint.sha256}
    return model, report


def _check_beit_options(
    source: str, to: str, pooling: str, num_attention_heads: int | None, norm_pix_loss: bool | None
) -> None:
    if num_attention_heads is not None or norm_pix_loss:
        flag = "--norm_pix_loss" if norm_pix_loss else "--num_attention_heads"
        raise ConversionError(ConversionMessage.BEIT_FLAG, flag=flag, source=source)
    if to not in ("auto", "classifier") or pooling == "cls":
        raise ConversionError(ConversionMessage.BEIT_TARGET, source=source)


def _check_choice(flag: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConversionError(ConversionMessage.NOT_A_CHOICE, flag=flag, value=value, choices=choices)


def _read_target_architecture(
    checkpoint: Checkpoint, target: str, heads: int | None, decoder_heads: int | None
) -> Architecture:
    """Reads the architecture of the parameters that the target uses, and notes assumed values."""
    state = checkpoint.state
    if target != "pretraining":  # an unused decoder may have any architecture
        state = {n: t for n, t in state.items() if not n.startswith(("decoder_", "mask_token"))}
    else:
        _check_decoder_keys(checkpoint)
    architecture = read_architecture(
        state,
        checkpoint.metadata,
        num_attention_heads=heads,
        decoder_num_attention_heads=decoder_heads,
        source=checkpoint.source,
    )
    for name, value in architecture.assumed.items():
        checkpoint.notes.append(
            f"{name} = {value} is assumed, the original default for this width; the file does not contain it"
        )
    return architecture


def _check_decoder_keys(checkpoint: Checkpoint) -> None:
    unknown = [name for name in checkpoint.state if name.startswith("decoder") and not is_mae_key(name)]
    if unknown:
        raise ConversionError(ConversionMessage.DECODER_UNSUPPORTED, source=checkpoint.source, names=unknown[:3])


def _plan_head(plan: _ConversionPlan, names: list[str] | None, num_labels: int | None) -> None:
    """Plans the classes of a classifier, and whether the head of the checkpoint is kept or replaced."""
    head = resolve_head(plan.checkpoint, plan.target, names, num_labels)
    plan.init_reasons["head"] = f"{head.reset_reason}; truncated normal, std 2e-5"
    if head.reset_reason and "head.weight" in plan.state:
        reason = f"{head.reset_reason}; replaced by a new head"
        plan.dropped_tensors = [{"source": name, "reason": reason} for name in ("head.weight", "head.bias")]
        plan.state = {name: tensor for name, tensor in plan.state.items() if not name.startswith("head.")}
        plan.checkpoint.notes.append(f"{head.reset_reason}; it was replaced by a new head")
    plan.checkpoint.notes += head.notes
    plan.config["num_labels"] = head.num_labels
    if names := head.names:
        plan.config |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


def _plan_pixel_loss(plan: _ConversionPlan, norm_pix_loss: bool | None) -> None:
    """Plans the mask ratio and the pixel loss of pre-training, from the flag or the checkpoint."""
    metadata = plan.checkpoint.metadata
    if plan.target != "pretraining":
        if norm_pix_loss:
            raise ConversionError(ConversionMessage.NORM_PIX_LOSS_WITHOUT_DECODER)
        return
    recorded = metadata.norm_pix_loss
    if None not in (norm_pix_loss, recorded) and norm_pix_loss != recorded:
        raise ConversionError(
            ConversionMessage.NORM_PIX_LOSS_CONTRADICTS,
            value=str(norm_pix_loss).lower(),
            source=plan.checkpoint.source,
            recorded=str(recorded).lower(),
        )
    if norm_pix_loss is None:
        norm_pix_loss = recorded
    if norm_pix_loss is None and plan.architecture.has_decoder:
        plan.architecture.assumed["norm_pix_loss"] = False
        plan.checkpoint.notes.append(
            "norm_pix_loss = false is assumed; the file does not contain it; pass --norm_pix_loss if the decoder "
            "predicts normalized patches"
        )
    plan.config.setdefault("norm_pix_loss", bool(norm_pix_loss))
    plan.config.setdefault("mask_ratio", 0.75 if metadata.mask_ratio is None else metadata.mask_ratio)


def _build_model(
    plan: _ConversionPlan, generator: torch.Generator | None
) -> tuple[Any, MappedStateDict, list[dict[str, Any]]]:
    """Builds the model; returns it with the mapping of the tensors and the report entries of initialized parameters."""
    import transformers

    arguments = {"add_pooling_layer": False} if plan.target == "backbone" else {}
    configuration = transformers_config(plan.architecture, plan.target, **plan.config)
    with torch.device("meta"):
        model = getattr(transformers, MODEL_CLASSES[plan.target])(configuration, **arguments)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    mapped_state = to_transformers_state_dict(plan.state, plan.target)
    initialized = _initialize_missing(mapped_state, plan.target, shapes, plan.init_reasons, generator)
    for name, tensor in mapped_state.tensors.items():
        if name in shapes and tensor.shape != shapes[name]:
            raise ConversionError(
                ConversionMessage.SHAPE_WRONG,
                source=plan.checkpoint.source,
                name=name,
                shape=tuple(tensor.shape),
                expected=tuple(shapes[name]),
            )
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    model.load_state_dict(_clone_tied_tensors(mapped_state.tensors), assign=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return model, mapped_state, initialized


def _clone_tied_tensors(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Clones tensors that share their storage: the stock classes have no tied weights and would not save them."""
    pointers: set[int] = set()
    cloned = {}
    for name, tensor in tensors.items():
        cloned[name] = tensor.clone() if tensor.data_ptr() in pointers else tensor
        pointers.add(tensor.data_ptr())
    return cloned


def _build_report(
    plan: _ConversionPlan, mapped_state: MappedStateDict, initialized: list[dict[str, Any]]
) -> ConversionReport:
    checkpoint, target = plan.checkpoint, plan.target
    return ConversionReport(
        source={"name": checkpoint.source, "layout": checkpoint.layout, "distilled": checkpoint.is_self_distilled},
        target={
            "class": MODEL_CLASSES[target],
            "pooling": target if target in ("cls", "mean") else None,
            **plan.architecture.encoder_config_kwargs(),
            "num_labels": plan.config.get("num_labels"),
        },
        assumed=plan.architecture.assumed,
        mapping=mapped_state.mapping,
        unused=plan.dropped_tensors + mapped_state.unused + checkpoint.unused,
        initialized=initialized,
        notes=checkpoint.notes,
        image_processor=checkpoint.metadata.image_processor,
        versions={name: version(name) for name in ("torch", "transformers", "safetensors")},
    )


def _set_image_size(
    state: dict[str, torch.Tensor], architecture: Architecture, image_size: int, checkpoint: Checkpoint
) -> None:
    if image_size % architecture.patch_size:
        raise ConversionError(
            ConversionMessage.IMAGE_SIZE_NOT_DIVISIBLE, image_size=image_size, patch_size=architecture.patch_size
        )
    for name in ("pos_embed", "decoder_pos_embed"):
        if name in state:
            state[name] = resize_position_embeddings(
                state[name], image_size // architecture.patch_size, architecture.grid_size
            )
    checkpoint.notes.append(
        f"position embeddings resized (bicubic) from {architecture.image_size} to {image_size} pixels"
    )
    architecture.image_size = image_size


def _initialized_mae_parameters(model: Any, target: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns the initialized parameters (head, fc_norm, decoder) under their original names."""
    mae_state, _ = to_mae_state_dict(model.state_dict(), target)
    return {name: tensor for name, tensor in mae_state.items() if name not in state}


def convert_checkpoint(
    source: str | Path,
    destination: str | Path,
    *,
    to: str = "auto",
    pooling: str = "auto",
    num_labels: int | None = None,
    labels: str | Path | list[str] | None = None,
    image_size: int | None = None,
    num_attention_heads: int | None = None,
    decoder_num_attention_heads: int | None = None,
    norm_pix_loss: bool | None = None,
    weights: str | None = None,
    processor: str = "auto",
    verify: bool = False,
    overwrite: bool = False,
) -> ConversionReport:
    """Converts a checkpoint to a folder for transformers: weights, config, image processor and `conversion.json`.

    Args:
        source: a `.pth` of facebookresearch/mae, DINO, iBOT, BEiT, data2vec or timm's ViT, a `.safetensors` with the
            same keys, a transformers folder (ViTMAE, ViT, BEiT with mean pooling) or a Hub id.
        destination: the folder to write.
        to: `pretraining` (ViTMAEForPreTraining), `classifier`, `backbone` (ViTModel), or `auto`: a classifier if the
            checkpoint has a head or labels are given, else pre-training if it has a decoder, else the backbone.
        pooling: `mean` (BeitForImageClassification, the default of the original code), `cls`
            (ViTForImageClassification), or `auto`: the pooling of a fine-tuned checkpoint, else `mean`.
        num_labels, labels: the classes; a head for a different number of labels is replaced by a new one (truncated
            normal, std 2e-5).
        image_size: pixels; position embeddings are resized (bicubic, as in the original code).
        num_attention_heads, decoder_num_attention_heads: required if neither the width nor the args of the checkpoint
            define them.
        norm_pix_loss: for `pretraining`, if the args of the checkpoint do not contain it.
        weights: `plain` or `ema` (averaged), if a file contains both; None: the plain weights, with a note.
        processor: the image processor to write: `auto` (that of the source, else `mae`), `square` or `mae`
            (`preprocessing.write_image_processor`).
        verify: compare the outputs on random input with the model of the source (transformers or timm if they can load
            it), and write nothing if they differ.
        overwrite: replace a non-empty destination.

    Raises:
        ConversionError: If the conversion fails; nothing was written.
    """
    _check_choice("processor", processor, PROCESSOR_CHOICES)
    with atomic_write_dir(destination, overwrite, ConversionError) as folder:
        model, report = convert_to_model(
            source,
            to=to,
            pooling=pooling,
            num_labels=num_labels,
            labels=labels,
            image_size=image_size,
            num_attention_heads=num_attention_heads,
            decoder_num_attention_heads=decoder_num_attention_heads,
            norm_pix_loss=norm_pix_loss,
            weights=weights,
            verify=verify,
            generator=torch.Generator().manual_seed(0),
        )
        with skip_deepspeed_import():
            model.save_pretrained(folder)
        report.notes += write_image_processor(folder, model.config, report.image_processor, processor)
        write_json(folder / REPORT_FILE, report.to_dict())
        apply_umask(folder)
    return report
