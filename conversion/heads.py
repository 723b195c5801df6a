"""Decides whether a converted classifier keeps the head of the checkpoint or gets a new one."""

import re
from dataclasses import dataclass, field

from .checkpoint import Checkpoint, Target
from .facts import Fact, FactCode, fact
from .messages import ConversionError, ConversionMessage

# Modules of a training program that are stored in the state dict of the model, but are not part of its function.
TRAINING_MODULES = r"(criterion|loss\w*|\w*metrics?|\w*(acc|auroc|f1|accuracy))\."


@dataclass
class Head:
    """The classes of a classifier, and why its head is new (None if the head of the checkpoint is kept)."""

    num_labels: int
    names: list[str] | None
    reset_reason: Fact | None
    notes: list[Fact] = field(default_factory=list)


def resolve_head(checkpoint: Checkpoint, target: Target, names: list[str] | None, num_labels: int | None) -> Head:
    """Decides between the head of the checkpoint and a new one.

    Args:
        target: a classifier.
        names, num_labels: the requested classes.

    Raises:
        ConversionError: If the classes are unknown or inconsistent, or the head of the checkpoint was trained on an
            input that the target does not compute.
    """
    head = resolve_classes(checkpoint, names, num_labels)
    if not head.reset_reason:
        _check_head_function(checkpoint, target)
    return head


def resolve_classes(checkpoint: Checkpoint, names: list[str] | None, num_labels: int | None) -> Head:
    """Decides between the head of the checkpoint and a new one, based on the classes only.

    Raises:
        ConversionError: If the classes are unknown or inconsistent.
    """
    weight, head_names = checkpoint.state.get("head.weight"), checkpoint.metadata.class_names
    head_size = None if weight is None else weight.shape[0]
    size = len(names) if names else num_labels or head_size
    if size is None:
        raise ConversionError(ConversionMessage.CLASSES_UNKNOWN)
    if names and num_labels and num_labels != len(names):
        raise ConversionError(ConversionMessage.NUM_LABELS_CONTRADICTS, num_labels=num_labels, count=len(names))
    if head_size is None:
        return Head(size, names, fact(FactCode.NO_HEAD))
    if head_names is not None and len(head_names) != head_size:
        raise ConversionError(
            ConversionMessage.CLASS_NAMES_CONTRADICT_HEAD,
            source=checkpoint.source,
            names=len(head_names),
            head=head_size,
        )
    if head_size != size:
        return Head(size, names, fact(FactCode.HEAD_SIZE_DIFFERS, found=head_size, requested=size))
    if names and head_names and names != head_names:
        return Head(size, names, fact(FactCode.HEAD_CLASSES_DIFFER))
    head = Head(size, names or head_names, None)
    if names and head_names is None:
        head.notes.append(fact(FactCode.HEAD_NAMES_FROM_LABELS, classes=head_size))
    return head


def _check_head_function(checkpoint: Checkpoint, target: Target) -> None:
    """Raises ConversionError if the pooling of the target does not compute the input of the head."""
    pooling, source = _infer_pooling(checkpoint), checkpoint.source
    if pooling != target.pooling:
        raise ConversionError(
            ConversionMessage.POOLING_CONTRADICTS_HEAD, source=source, pooling=pooling, requested=target.pooling
        )
    unknown = [
        name
        for name in checkpoint.state
        if not checkpoint.layout.is_known(name) and not re.match(rf"decoder|{TRAINING_MODULES}", name)
    ]
    if unknown:
        raise ConversionError(ConversionMessage.HEAD_UNSUPPORTED, source=source, names=unknown[:3])


def _infer_pooling(checkpoint: Checkpoint) -> str:
    """Infers `mean` or `cls` from the norms and the metadata of a checkpoint."""
    state, metadata, source = checkpoint.state, checkpoint.metadata, checkpoint.source
    if "fc_norm.weight" in state:
        if (metadata.model or "").lower().startswith("retfound"):
            raise ConversionError(ConversionMessage.RETFOUND_MEAN_POOLING, source=source, model=metadata.model)
        if "norm.weight" in state:
            raise ConversionError(ConversionMessage.NORM_BEFORE_AND_AFTER_POOLING, source=source)
        if metadata.pooling not in (None, "mean"):
            raise ConversionError(ConversionMessage.POOLING_CONTRADICTS_NORM, source=source, pooling=metadata.pooling)
        return "mean"
    if metadata.pooling not in (None, "cls"):
        raise ConversionError(ConversionMessage.POOLING_UNSUPPORTED, source=source, pooling=metadata.pooling)
    return "cls"
