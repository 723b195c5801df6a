"""Converts a checkpoint to a stock transformers model, with a report on every tensor."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hf_mae.compat.accelerate import skip_deepspeed_import
from hf_mae.files.atomic import atomic_write_dir, write_json

from .checkpoint import ConversionPlan, ConversionRequest, State
from .initialization import initial_value
from .key_mapping import MappedStateDict, to_original_state_dict, to_transformers_state_dict
from .labels import read_labels
from .messages import ConversionError, ConversionMessage
from .nesting import WEIGHTS_CHOICES
from .preprocessing import PROCESSOR_CHOICES, write_image_processor
from .reading import read_checkpoint
from .report import REPORT_FILE, ConversionReport
from .verification import verify_against_source

TARGET_CHOICES = ("auto", "pretraining", "classifier", "backbone")
POOLING_CHOICES = ("auto", "mean", "cls")


def convert_to_model(
    source: str | Path,
    *,
    labels: str | Path | list[str] | None = None,
    weights: str | None = None,
    verify: bool = False,
    generator: torch.Generator | None = None,
    **options: Any,
) -> tuple[Any, ConversionReport]:
    """Builds a stock transformers model in memory from any source of `read_checkpoint`.

    Unchanged parameters are views of the memory-mapped source. `convert_checkpoint` documents the other arguments.

    Args:
        generator: random numbers for a new head.
        options: other fields of `ConversionRequest`.

    Returns:
        The model (training mode, CPU, float32) and its `ConversionReport`.
    """
    request = ConversionRequest(names=None if labels is None else read_labels(labels), **options)
    _check_choice("to", request.to, TARGET_CHOICES)
    _check_choice("pooling", request.pooling, POOLING_CHOICES)
    _check_choice("weights", weights, (None, *WEIGHTS_CHOICES))
    checkpoint = read_checkpoint(source, weights=weights)
    assert checkpoint.layout.plan is not None
    plan = checkpoint.layout.plan(checkpoint, request)
    model, mapped_state, initialized = _build_model(plan, generator)
    report = _build_report(plan, mapped_state, initialized)
    if verify:
        report.verification = verify_against_source(model, plan)
    report.source |= {"size": checkpoint.size, "sha256": checkpoint.sha256}
    return model, report


def _check_choice(flag: str, value: str | None, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        raise ConversionError(ConversionMessage.NOT_A_CHOICE, flag=flag, value=value, choices=[*filter(None, choices)])


def _build_model(
    plan: ConversionPlan, generator: torch.Generator | None
) -> tuple[Any, MappedStateDict, list[dict[str, Any]]]:
    """Builds the model; returns it with the mapping of the tensors and the report entries of initialized parameters."""
    import transformers

    arguments = {"add_pooling_layer": False} if plan.target.class_name == "ViTModel" else {}
    with torch.device("meta"):
        model = getattr(transformers, plan.target.class_name)(plan.config, **arguments)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    mapped_state = to_transformers_state_dict(plan.state, plan.target)
    initialized = _initialize_missing(mapped_state, plan, shapes, generator)
    _check_shapes(mapped_state.tensors, shapes, plan.checkpoint.source)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    model.load_state_dict(_clone_tied_tensors(mapped_state.tensors), assign=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return model, mapped_state, initialized


def _initialize_missing(
    mapped_state: MappedStateDict, plan: ConversionPlan, shapes: dict[str, torch.Size], generator: Any
) -> list[dict[str, Any]]:
    """Adds initial values for the parameters that the source lacks, and returns an entry of the report for each."""
    missing = {
        name: torch.empty(shape, device="meta") for name, shape in shapes.items() if name not in mapped_state.tensors
    }
    original, _ = to_original_state_dict(missing, plan.target)
    if names := [name for name in original if name.split(".")[0] not in plan.init_reasons]:
        raise ConversionError(
            ConversionMessage.PARAMETERS_MISSING,
            source=plan.checkpoint.source,
            layout=plan.target.class_name,
            count=len(names),
            names=names[:5],
        )
    values = {name: initial_value(name, tuple(tensor.shape), generator) for name, tensor in original.items()}
    initialized = to_transformers_state_dict(values, plan.target)
    mapped_state.tensors.update(initialized.tensors)
    return [
        {"target": name, "reason": plan.init_reasons[entry["source"].split(".")[0]]}
        for entry in initialized.mapping
        for name in entry["target"]
    ]


def _check_shapes(tensors: State, shapes: dict[str, torch.Size], source: str) -> None:
    for name, tensor in tensors.items():
        if name not in shapes:
            raise ConversionError(ConversionMessage.PARAMETERS_INCONSISTENT, source=source, name=name)
        if tensor.shape != shapes[name]:
            raise ConversionError(
                ConversionMessage.SHAPE_WRONG,
                source=source,
                name=name,
                shape=tuple(tensor.shape),
                expected=tuple(shapes[name]),
            )


def _clone_tied_tensors(tensors: State) -> State:
    """Clones tensors that share their storage: the stock classes have no tied weights and would not save them."""
    pointers: set[int] = set()
    cloned = {}
    for name, tensor in tensors.items():
        cloned[name] = tensor.clone() if tensor.data_ptr() in pointers else tensor
        pointers.add(tensor.data_ptr())
    return cloned


def _build_report(
    plan: ConversionPlan, mapped_state: MappedStateDict, initialized: list[dict[str, Any]]
) -> ConversionReport:
    checkpoint = plan.checkpoint
    return ConversionReport(
        source={
            "name": checkpoint.source,
            "layout": checkpoint.layout.name,
            "contents": checkpoint.contents,
            "class": checkpoint.stock_class,
            "distilled": checkpoint.is_self_distilled,
        },
        target={"class": plan.target.class_name, "pooling": plan.target.pooling, **plan.sizes},
        assumed=plan.assumed,
        mapping=mapped_state.mapping,
        unused=plan.dropped_tensors + mapped_state.unused + checkpoint.unused,
        initialized=initialized,
        notes=checkpoint.notes,
        image_processor=checkpoint.metadata.image_processor,
        versions={name: version(name) for name in ("torch", "transformers", "safetensors")},
    )


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
    return report
