"""Whose head a converted classifier gets, and whether it computes there what it was trained to."""

import re
from dataclasses import dataclass, field

from .checkpoint import Checkpoint
from .errors import ConversionError
from .key_mapping import is_mae_key

# Modules of a training program, beside the model in one state dict, that take no part in its function.
TRAINING_MODULES = r"(criterion|loss\w*|\w*metrics?|\w*(acc|auroc|f1|accuracy))\."


@dataclass
class Head:
    """The classes of a classifier, and why its head is new (empty if the checkpoint's is kept)."""

    num_labels: int
    names: list[str] | None
    reset_reason: str
    notes: list[str] = field(default_factory=list)


def resolve_head(checkpoint: Checkpoint, target: str, names: list[str] | None, num_labels: int | None) -> Head:
    """Decides between the checkpoint's head and a fresh one.

    Args:
        target: `cls` or `mean`.
        names, num_labels: what was asked for.

    Raises:
        ConversionError: there are no classes, they contradict each other, or the head that would be kept was trained
            on something that the target does not compute.
    """
    kept = resolve_classes(checkpoint, names, num_labels)
    if not kept.reset_reason:
        _check_head_function(checkpoint, target)
    return kept


def resolve_classes(checkpoint: Checkpoint, names: list[str] | None, num_labels: int | None) -> Head:
    """Decides between the checkpoint's head and a fresh one by the classes alone.

    Raises:
        ConversionError: there are no classes, or they contradict each other.
    """
    head = checkpoint.state.get("head.weight")
    own, own_names = (None if head is None else head.shape[0]), checkpoint.metadata.class_names
    wanted = len(names) if names else num_labels or own
    if wanted is None:
        raise ConversionError("A classifier needs its classes: pass --num_labels N, or --labels FILE.")
    if names and num_labels and num_labels != len(names):
        raise ConversionError(f"--num_labels {num_labels} and the {len(names)} names of --labels do not agree.")
    if own is None:
        return Head(wanted, names, "the checkpoint has no head")
    if own_names is not None and len(own_names) != own:
        raise ConversionError(f"{checkpoint.source} names {len(own_names)} classes, and its head is for {own}.")
    if own != wanted:
        return Head(wanted, names, f"the checkpoint's head is for {own} labels, not {wanted}")
    if names and own_names and names != own_names:
        return Head(wanted, names, "the checkpoint's head is for classes of other names or in another order")
    kept = Head(wanted, names or own_names, "")
    if names and own_names is None:
        kept.notes.append(
            f"the head of the checkpoint's {own} classes is kept; it does not name them: that they are these, in this "
            "order, is what the labels say"
        )
    return kept


def _check_head_function(checkpoint: Checkpoint, target: str) -> None:
    """Refuses to keep a head whose input the target's pooling does not compute."""
    trained, source = _infer_pooling(checkpoint), checkpoint.source
    if trained != target:
        raise ConversionError(
            f"{source} was fine-tuned with --pooling {trained}, so its head does not fit {target}: "
            f"use {trained}, or convert the pre-trained checkpoint instead."
        )
    unknown = [
        name
        for name in checkpoint.state
        if not (is_mae_key(name) or name.startswith("decoder") or re.match(TRAINING_MODULES, name))
    ]
    if unknown:
        raise ConversionError(
            f"{source} has parameters that facebookresearch/mae does not have ({', '.join(unknown[:3])}), so its head "
            "was trained on something else: --to backbone takes its encoder, --num_labels N of another N a fresh head."
        )


def _infer_pooling(checkpoint: Checkpoint) -> str:
    """`mean` or `cls`, by the norms that the checkpoint has and what it says; what no stock class computes is
    refused."""
    state, known, source = checkpoint.state, checkpoint.metadata, checkpoint.source
    instead = "convert it --to backbone, or fine-tune from its encoder"
    if "fc_norm.weight" in state:
        if (known.model or "").lower().startswith("retfound"):
            raise ConversionError(
                f"{source} is RETFound's classifier with mean pooling (args.model is {known.model}), which applies its "
                f"last norm twice under its timm 0.9; no stock class computes that: {instead}."
            )
        if "norm.weight" in state:
            raise ConversionError(
                f"{source} norms before its pooling and after it (norm, fc_norm), and no stock class does: {instead}."
            )
        if known.pooling not in (None, "mean"):
            raise ConversionError(
                f"{source} contradicts itself: its args say --pooling {known.pooling}, and fc_norm is of mean pooling."
            )
        return "mean"
    if known.pooling not in (None, "cls"):
        raise ConversionError(
            f"{source} was fine-tuned with pooling '{known.pooling}' and has no fc_norm, so it pools after its norm; "
            f"no stock class computes that: {instead}."
        )
    return "cls"
