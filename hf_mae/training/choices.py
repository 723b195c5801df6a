"""What is chosen for a user who has no opinion (`--auto`), each with its reason."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..settings.arguments import BASE_BATCH, FinetuningArguments
from ..settings.training import FinetuningFields
from .planning import UNEVEN

MEMORY = "what should fit into the memory at once (a step is tried before the first epoch)"
BATCH_SIZES = ("per_device_train_batch_size", "effective_batch_size")
LARGE = 1024  # width of a ViT-L
UPDATES_AN_EPOCH = 40  # at least, if the batch can be that small
EPOCHS = ((500, 100), (10_000, 50), (50_000, 30), (200_000, 15))  # of fewer images than
MANY_IMAGES = 8  # epochs of more
OF_RECALL = ("macro_recall", "balanced_accuracy")  # metrics that count what is found of each class, and nothing else


@dataclass(frozen=True)
class Choice:
    """A setting that was chosen."""

    name: str
    value: Any
    reason: str


def choose_split(splits: Mapping[str, Any]) -> list[Choice]:
    """What has to be known before the data is read as it will be trained on."""
    if "validation" in splits:
        return []
    return [Choice("val_fraction", 0.2, "there is no validation split, and something has to judge the epochs")]


def choose(
    splits: Mapping[str, Any],
    hidden_size: int,
    image_size: int,
    args: FinetuningArguments,
    asked: Mapping[str, int] | None = None,
    parts: int = 1,
) -> list[Choice]:
    """Everything else.

    Args:
        splits: as they are trained and judged on.
        hidden_size, image_size: of the checkpoint.
        args: what was given, and defaults.
        asked: the batch sizes that were given, by name.
        parts: how often the batch of a step is taken for an update: processes x accumulation.
    """
    labels = np.asarray(splits["train"]["labels"][:])
    counts = np.unique(labels, return_counts=True)[1]
    batches = _of_the_batch(len(labels), hidden_size)
    return [
        Choice("image_size", image_size, "the checkpoint's own"),
        *_of_the_machine(hidden_size),
        *batches,
        _of_the_rate(_images_of_an_update(batches, asked or {}, parts)),
        *_of_the_length(len(labels)),
        *_of_the_balance(counts, args),
        Choice(
            "drop_path",
            0.2 if hidden_size >= LARGE else 0.1,
            "the reference does for " + ("large models" if hidden_size >= LARGE else "models of this size"),
        ),
    ]


def _of_the_machine(hidden_size: int) -> list[Choice]:
    if not torch.cuda.is_available():
        return [Choice("bf16", False, "there is no GPU: float32 is exact (--bf16 is faster on some CPUs)")]
    cores = os.cpu_count() or 1
    half = torch.cuda.is_bf16_supported()
    precision = Choice("bf16", True, "the GPU computes in bfloat16") if half else _fp16(hidden_size)
    return [precision, Choice("dataloader_num_workers", min(8, max(1, cores - 1)), f"of {cores} cores")]


def _fp16(hidden_size: int) -> Choice:
    if hidden_size > LARGE:
        return Choice("fp16", False, "the GPU has no bfloat16, and fp16 is known to give NaN with a ViT-H")
    return Choice("fp16", True, "the GPU has no bfloat16")


def _of_the_batch(images: int, hidden_size: int) -> list[Choice]:
    """A power of two, of which an epoch has some dozens of updates; in parts that fit into the memory."""
    wanted = 2 ** int(np.clip(np.floor(np.log2(max(images / UPDATES_AN_EPOCH, 1))), 3, 6))
    at_once = min(wanted, _fits(hidden_size))
    reason = f"an epoch of {images} images then has {images // wanted} updates"
    parts = [Choice("effective_batch_size", wanted, reason)] if at_once < wanted else []
    return [Choice("per_device_train_batch_size", at_once, MEMORY if at_once < wanted else reason), *parts]


def _images_of_an_update(batches: list[Choice], asked: Mapping[str, int], parts: int) -> int:
    """With the batch sizes that were chosen, or given: of all processes together, or of each."""
    chosen = {one.name: int(one.value) for one in batches} | dict(asked)
    return chosen.get("effective_batch_size") or chosen["per_device_train_batch_size"] * parts


def _of_the_rate(batch: int) -> Choice:
    """The reference's rate at its 256 images, by the square root of the batch (Malladi et al., 2022): in proportion, as
    for SGD, the small batches of small data sets get rates at which little is learnt (docs/choices.md)."""
    base = FinetuningFields.base_learning_rate * math.sqrt(BASE_BATCH / batch)
    reason = (
        f"AdamW's rate follows the square root of the batch ({batch}), and the rule that takes this is in proportion"
    )
    return Choice("base_learning_rate", float(f"{base:.2g}"), reason)


def _fits(hidden_size: int) -> int:
    """Images at once, by the memory of the device; the plan measures it before the first epoch."""
    if not torch.cuda.is_available():
        return 16
    memory = torch.cuda.get_device_properties(0).total_memory / 1e9
    each = 0.35 * (hidden_size / 768) ** 2  # GB an image of 224 pixels in bfloat16, without what the weights take
    return 2 ** int(np.clip(np.floor(np.log2(max(1.0, (0.7 * memory - 3) / each))), 0, 6))


def _of_the_length(images: int) -> list[Choice]:
    epochs = next((epochs for bound, epochs in EPOCHS if images < bound), MANY_IMAGES)
    return [
        Choice(
            "num_train_epochs", epochs, f"there are {images} training images: the fewer, the more often each is seen"
        ),
        Choice("warmup_epochs", epochs / 10, "a tenth of the epochs, as the reference"),
    ]


def _of_the_balance(counts: np.ndarray, args: FinetuningArguments) -> list[Choice]:
    """By what scripts/study_long_tail.py found (docs/measured.md): weights find the most of a rare class, and call many
    others by its name; square-root sampling finds nearly as much without that."""
    if args.balances:
        return []
    times, metric = counts.max() / counts.min(), (args.metric_for_best_model or "").removeprefix("eval_")
    reason = f"the largest class has {times:.1f} times the images of the smallest"
    if times < UNEVEN:
        return [Choice("class_weights", ["none"], reason)]
    if metric in OF_RECALL:
        return [Choice("class_weights", ["balanced"], f"{reason}, and {metric} is of recall alone")]
    return [Choice("sampling", "square_root", f"{reason}, and weights would cost precision")]


def as_recipe(choices: list[Choice]) -> str:
    """YAML, with a reason beside each line."""
    lines = ["# Chosen by --auto. hf-mae finetune --recipe takes this file; flags win over it."]
    for choice in choices:
        value = choice.value
        shown = str(value).lower() if isinstance(value, bool) else str(value).replace("'", "")
        lines.append(f"{choice.name + ': ' + shown:36} # {choice.reason}")
    return "\n".join(lines) + "\n"
