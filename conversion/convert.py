"""Checkpoint -> stock transformers model, with a certificate of what became of every tensor."""

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
from .preprocessing import PROCESSOR_CHOICES, write_image_processor
from .report import REPORT_FILE, ConversionReport
from .verification import verify_against_source

TARGET_CHOICES = ("auto", "pretraining", "classifier", "backbone")
POOLING_CHOICES = ("auto", "mean", "cls")


def resize_position_embeddings(
    positions: torch.Tensor, new_grid_size: int, old_grid_size: tuple[int, int]
) -> torch.Tensor:
    """Bicubic resize of (1, 1 + height * width, width) position embeddings from a grid `old_grid_size` to a square one.

    The class token's stays. The reference's `interpolate_pos_embed` (util/pos_embed.py).
    """
    token, patches = positions[:, :1], positions[:, 1:]
    patches = patches.reshape(1, *old_grid_size, -1).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, size=(new_grid_size, new_grid_size), mode="bicubic", align_corners=False)
    return torch.cat([token, patches.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def _choose_target(checkpoint: Checkpoint, to: str, pooling: str, has_labels: bool) -> str:
    """The key of `names.TARGETS` for what was asked, from what the checkpoint holds."""
    state = checkpoint.state
    has_head, has_decoder = "head.weight" in state, "decoder_pred.weight" in state
    if to == "auto":
        to = "classifier" if has_labels or has_head else "pretraining" if has_decoder else "backbone"
    if to != "classifier":
        if pooling != "auto":
            raise ConversionError(f"--pooling {pooling} is for a classifier, and this becomes a {to}: leave it out.")
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
    """Adds initial values for the parameters that the source lacks; each is reported."""
    missing = {
        name: torch.empty(shape, device="meta") for name, shape in shapes.items() if name not in mapped_state.tensors
    }
    references, _ = to_mae_state_dict(missing, target)
    fresh = {name: initial_value(name, tuple(tensor.shape), generator) for name, tensor in references.items()}
    filled = to_transformers_state_dict(fresh, target)
    mapped_state.tensors.update(filled.tensors)
    init_reasons = {
        "fc_norm": "the norm of mean pooling starts at one and zero, as in the reference",
        "norm": "the checkpoint was fine-tuned with mean pooling and has none; it starts at one and zero",
    } | init_reasons
    return [
        {"target": name, "reason": init_reasons.get(entry["source"].split(".")[0], "the checkpoint has no decoder")}
        for entry in filled.mapping
        for name in entry["target"]
    ]


@dataclass
class _ConversionPlan:
    """What a checkpoint becomes, before a model is built."""

    checkpoint: Checkpoint
    target: str  # a key of `names.TARGETS`
    architecture: Architecture
    state: dict[str, torch.Tensor]  # by the reference's names, as far as it is used
    config: dict[str, Any]  # what the model's configuration gets beside the sizes
    dropped_tensors: list[dict[str, Any]] = field(
        default_factory=list
    )  # {"source", "reason"} of tensors that are replaced
    init_reasons: dict[str, str] = field(default_factory=dict)  # why a module starts fresh


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
    """A stock transformers model in memory from any source of `read_checkpoint`.

    The parameters are views of the memory-mapped source where nothing had to change; `convert_checkpoint` documents
    the arguments. `generator` draws the fresh head, and `config` goes to the model's configuration.

    Returns:
        The model (in training mode as built, on the CPU, float32) and its `ConversionReport`.
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
    carried = checkpoint.metadata.config if checkpoint.metadata.pooling == target else None
    plan = _ConversionPlan(checkpoint, target, architecture, dict(checkpoint.state), (carried or {}) | config)
    if target in ("cls", "mean"):
        _plan_head(plan, names, num_labels)
    _plan_pixel_loss(plan, norm_pix_loss)
    if image_size and (image_size, image_size) != architecture.height_width:
        _set_image_size(plan.state, architecture, image_size, checkpoint)
    model, mapped, new = _build_model(plan, generator)
    report = _build_report(plan, mapped, new)
    if verify:
        full = plan.state | _initialized_mae_parameters(model, target, plan.state)
        report.verification = verify_against_source(model, full, architecture, target, checkpoint)
    report.source |= {"size": checkpoint.size, "sha256": checkpoint.sha256}
    return model, report


def _check_beit_options(
    source: str, to: str, pooling: str, num_attention_heads: int | None, norm_pix_loss: bool | None
) -> None:
    if num_attention_heads is not None or norm_pix_loss:
        flag = "--norm_pix_loss" if norm_pix_loss else "--num_attention_heads"
        raise ConversionError(f"{flag} is for an MAE, and {source} is a BEiT (or data2vec): leave it out.")
    if to not in ("auto", "classifier") or pooling == "cls":
        raise ConversionError(
            f"{source} is a BEiT (or data2vec), of which a classifier with mean pooling is made: leave out --to and "
            "--pooling, and pass --num_labels N."
        )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConversionError(f"--{name} takes one of {', '.join(choices)}, not {value}.")


def _read_target_architecture(
    checkpoint: Checkpoint, target: str, heads: int | None, decoder_heads: int | None
) -> Architecture:
    """The sizes of what is used, with a note on what was supposed."""
    needed = checkpoint.state
    if target != "pretraining":  # a decoder that is left out need not be understood
        needed = {n: t for n, t in needed.items() if not n.startswith(("decoder_", "mask_token"))}
    else:
        _check_decoder_keys(checkpoint)
    architecture = read_architecture(
        needed,
        checkpoint.metadata,
        num_attention_heads=heads,
        decoder_num_attention_heads=decoder_heads,
        source=checkpoint.source,
    )
    for name, value in architecture.assumed.items():
        checkpoint.notes.append(
            f"{name} = {value} is supposed, as the reference's model of this width has; the file does not say"
        )
    return architecture


def _check_decoder_keys(checkpoint: Checkpoint) -> None:
    unknown = [name for name in checkpoint.state if name.startswith("decoder") and not is_mae_key(name)]
    if unknown:
        raise ConversionError(
            f"{checkpoint.source} has a decoder of another kind than facebookresearch/mae ({', '.join(unknown[:3])}): "
            "--to backbone takes its encoder, and --num_labels N makes a classifier of that."
        )


def _plan_head(plan: _ConversionPlan, names: list[str] | None, num_labels: int | None) -> None:
    """The classes of a classifier, and whether its head is the checkpoint's or a fresh one."""
    head = resolve_head(plan.checkpoint, plan.target, names, num_labels)
    plan.init_reasons["head"] = f"{head.reset_reason}; truncated normal, std 2e-5"
    if head.reset_reason and "head.weight" in plan.state:
        reason = f"{head.reset_reason}; a fresh head takes its place"
        plan.dropped_tensors = [{"source": name, "reason": reason} for name in ("head.weight", "head.bias")]
        plan.state = {name: tensor for name, tensor in plan.state.items() if not name.startswith("head.")}
        plan.checkpoint.notes.append(f"{head.reset_reason}: its head was dropped and a fresh one takes its place")
    plan.checkpoint.notes += head.notes
    plan.config["num_labels"] = head.num_labels
    if names := head.names:
        plan.config |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


def _plan_pixel_loss(plan: _ConversionPlan, norm_pix_loss: bool | None) -> None:
    """Mask ratio and target of pre-training, as they were asked for or as the checkpoint tells."""
    known = plan.checkpoint.metadata
    if plan.target != "pretraining":
        if norm_pix_loss:
            raise ConversionError(
                "--norm_pix_loss is for --to pretraining: a classifier or backbone has no pixel loss."
            )
        return
    if None not in (norm_pix_loss, known.norm_pix_loss) and norm_pix_loss != known.norm_pix_loss:
        raise ConversionError(
            f"--norm_pix_loss {str(norm_pix_loss).lower()} contradicts {plan.checkpoint.source}, which says "
            f"{str(known.norm_pix_loss).lower()}: leave the flag out."
        )
    chosen = known.norm_pix_loss if norm_pix_loss is None else norm_pix_loss
    if chosen is None and plan.architecture.has_decoder:
        plan.architecture.assumed["norm_pix_loss"] = False
        plan.checkpoint.notes.append(
            "norm_pix_loss = false is supposed: the file does not say whether its decoder predicts normalised patches; "
            "--norm_pix_loss says that it does"
        )
    plan.config.setdefault("norm_pix_loss", bool(chosen))
    plan.config.setdefault("mask_ratio", 0.75 if known.mask_ratio is None else known.mask_ratio)


def _build_model(
    plan: _ConversionPlan, generator: torch.Generator | None
) -> tuple[Any, MappedStateDict, list[dict[str, Any]]]:
    """The model with the checkpoint's tensors, how they were mapped, and what is new."""
    import transformers

    arguments = {"add_pooling_layer": False} if plan.target == "backbone" else {}
    configuration = transformers_config(plan.architecture, plan.target, **plan.config)
    with torch.device("meta"):
        model = getattr(transformers, MODEL_CLASSES[plan.target])(configuration, **arguments)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    mapped = to_transformers_state_dict(plan.state, plan.target)
    new = _initialize_missing(mapped, plan.target, shapes, plan.init_reasons, generator)
    for name, tensor in mapped.tensors.items():
        if name in shapes and tensor.shape != shapes[name]:
            raise ConversionError(
                f"{plan.checkpoint.source}: {name} should be of shape {tuple(shapes[name])} and is "
                f"{tuple(tensor.shape)}."
            )
    fixed = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    model.load_state_dict(_clone_tied_tensors(mapped.tensors), assign=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in fixed)
    return model, mapped, new


def _clone_tied_tensors(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors that were tied in training become two: the stock classes tie none, and would not save them."""
    seen: set[int] = set()
    own = {}
    for name, tensor in tensors.items():
        own[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return own


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
        raise ConversionError(f"--image_size {image_size} is no multiple of the patch size, {architecture.patch_size}.")
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
    """Reference names of the parameters that the model has and the source lacks (a fresh head, fc_norm, decoder)."""
    references, _ = to_mae_state_dict(model.state_dict(), target)
    return {name: tensor for name, tensor in references.items() if name not in state}


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
    """Writes a folder that transformers loads: weights, config, image processor and `conversion.json`.

    Args:
        source: a `.pth` of facebookresearch/mae, DINO, iBOT, BEiT, data2vec or timm's ViT, a `.safetensors` of the same
            names, a transformers folder (ViTMAE, ViT, mean-pooling BEiT) or a Hub id.
        destination: the folder to write.
        to: `pretraining` (ViTMAEForPreTraining), `classifier`, `backbone` (ViTModel), or `auto`: a classifier where
            there is a head or labels are given, else pre-training where there is a decoder, else the backbone.
        pooling: `mean` (BeitForImageClassification, the reference's default), `cls` (ViTForImageClassification), or
            `auto`: as a fine-tuned checkpoint was trained, else `mean`.
        num_labels, labels: the classes; a head for another number of labels is dropped with a note, and the fresh
            one is truncated normal with std 2e-5.
        image_size: pixels; position embeddings are resized (bicubic, as the reference does).
        num_attention_heads, decoder_num_attention_heads: where neither the width nor the checkpoint's args tell.
        norm_pix_loss: for `pretraining`, where the checkpoint's args do not say.
        weights: `plain` or `ema` (averaged), where a file holds both; None: the plain ones, with a note.
        processor: which image processor is written: `auto` (the source's own, else the reference's), `square` or
            `reference` (`preprocessing.write_image_processor`).
        verify: run both sides on random input, and write nothing if they differ. The other side is the source's own
            stock model where it has one (transformers, timm), and says so.
        overwrite: replace a non-empty destination.

    Raises:
        ConversionError: one sentence on what is wrong; nothing was written.
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
