"""What is chosen for a user who has no opinion (`--auto`), each with its reason."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..settings.arguments import BASE_BATCH_SIZE, FinetuningArguments
from ..settings.training import FinetuningFields
from .training_plan import IMBALANCE_RATIO

MEMORY_REASON = "what should fit into the memory at once (a step is tried before the first epoch)"
BATCH_SIZE_FLAGS = ("per_device_train_batch_size", "effective_batch_size")
LARGE_HIDDEN_SIZE = 1024  # width of a ViT-L
MIN_UPDATES_PER_EPOCH = 40  # at least, if the batch can be that small
EPOCHS_BY_SIZE = ((500, 100), (10_000, 50), (50_000, 30), (200_000, 15))  # of fewer images than
MIN_EPOCHS = 8  # epochs of more
RECALL_METRICS = (
    "macro_recall",
    "balanced_accuracy",
)  # metrics that count what is found of each class, and nothing else


@dataclass(frozen=True)
class AutoSetting:
    """A setting that was chosen."""

    name: str
    value: Any
    reason: str


def choose_split_settings(splits: Mapping[str, Any]) -> list[AutoSetting]:
    """What has to be known before the data is read as it will be trained on."""
    if "validation" in splits:
        return []
    return [AutoSetting("val_fraction", 0.2, "there is no validation split, and something has to judge the epochs")]


def choose_settings(
    splits: Mapping[str, Any],
    hidden_size: int,
    image_size: int,
    args: FinetuningArguments,
    requested_batch_sizes: Mapping[str, int] | None = None,
    micro_batches_per_update: int = 1,
) -> list[AutoSetting]:
    """Everything else.

    Args:
        splits: as they are trained and judged on.
        hidden_size, image_size: of the checkpoint.
        args: what was given, and defaults.
        requested_batch_sizes: the batch sizes that were given, by name.
        micro_batches_per_update: how often the batch of a step is taken for an update: processes x accumulation.
    """
    labels = np.asarray(splits["train"]["labels"][:])
    counts = np.unique(labels, return_counts=True)[1]
    batches = _choose_batch_size(len(labels), hidden_size)
    return [
        AutoSetting("image_size", image_size, "the checkpoint's own"),
        *_choose_precision_and_workers(hidden_size),
        *batches,
        _choose_learning_rate(_images_per_update(batches, requested_batch_sizes or {}, micro_batches_per_update)),
        *_choose_epochs(len(labels)),
        *_choose_rebalancing(counts, args),
        AutoSetting(
            "drop_path",
            0.2 if hidden_size >= LARGE_HIDDEN_SIZE else 0.1,
            "the reference does for " + ("large models" if hidden_size >= LARGE_HIDDEN_SIZE else "models of this size"),
        ),
    ]


def _choose_precision_and_workers(hidden_size: int) -> list[AutoSetting]:
    if not torch.cuda.is_available():
        return [AutoSetting("bf16", False, "there is no GPU: float32 is exact (--bf16 is faster on some CPUs)")]
    cores = os.cpu_count() or 1
    half = torch.cuda.is_bf16_supported()
    precision = AutoSetting("bf16", True, "the GPU computes in bfloat16") if half else _choose_fp16(hidden_size)
    return [precision, AutoSetting("dataloader_num_workers", min(8, max(1, cores - 1)), f"of {cores} cores")]


def _choose_fp16(hidden_size: int) -> AutoSetting:
    if hidden_size > LARGE_HIDDEN_SIZE:
        return AutoSetting("fp16", False, "the GPU has no bfloat16, and fp16 is known to give NaN with a ViT-H")
    return AutoSetting("fp16", True, "the GPU has no bfloat16")


def _choose_batch_size(images: int, hidden_size: int) -> list[AutoSetting]:
    """A power of two, of which an epoch has some dozens of updates; in parts that fit into the memory."""
    wanted = 2 ** int(np.clip(np.floor(np.log2(max(images / MIN_UPDATES_PER_EPOCH, 1))), 3, 6))
    at_once = min(wanted, _max_batch_size(hidden_size))
    reason = f"an epoch of {images} images then has {images // wanted} updates"
    parts = [AutoSetting("effective_batch_size", wanted, reason)] if at_once < wanted else []
    return [AutoSetting("per_device_train_batch_size", at_once, MEMORY_REASON if at_once < wanted else reason), *parts]


def _images_per_update(
    batch_settings: list[AutoSetting], requested_batch_sizes: Mapping[str, int], micro_batches_per_update: int
) -> int:
    """With the batch sizes that were chosen, or given: of all processes together, or of each."""
    chosen = {one.name: int(one.value) for one in batch_settings} | dict(requested_batch_sizes)
    return chosen.get("effective_batch_size") or chosen["per_device_train_batch_size"] * micro_batches_per_update


def _choose_learning_rate(batch: int) -> AutoSetting:
    """The reference's rate at its 256 images, by the square root of the batch (Malladi et al., 2022): in proportion, as
    for SGD, the small batches of small data sets get rates at which little is learnt (docs/choices.md)."""
    base = FinetuningFields.base_learning_rate * math.sqrt(BASE_BATCH_SIZE / batch)
    reason = (
        f"AdamW's rate follows the square root of the batch ({batch}), and the rule that takes this is in proportion"
    )
    return AutoSetting("base_learning_rate", float(f"{base:.2g}"), reason)


def _max_batch_size(hidden_size: int) -> int:
    """Images at once, by the memory of the device; the plan measures it before the first epoch."""
    if not torch.cuda.is_available():
        return 16
    memory = torch.cuda.get_device_properties(0).total_memory / 1e9
    each = 0.35 * (hidden_size / 768) ** 2  # GB an image of 224 pixels in bfloat16, without what the weights take
    return 2 ** int(np.clip(np.floor(np.log2(max(1.0, (0.7 * memory - 3) / each))), 0, 6))


def _choose_epochs(images: int) -> list[AutoSetting]:
    epochs = next((epochs for bound, epochs in EPOCHS_BY_SIZE if images < bound), MIN_EPOCHS)
    return [
        AutoSetting(
            "num_train_epochs", epochs, f"there are {images} training images: the fewer, the more often each is seen"
        ),
        AutoSetting("warmup_epochs", epochs / 10, "a tenth of the epochs, as the reference"),
    ]


def _choose_rebalancing(counts: np.ndarray, args: FinetuningArguments) -> list[AutoSetting]:
    """By what scripts/study_long_tail.py found (docs/measured.md): weights find the most of a rare class, and call many
    others by its name; square-root sampling finds nearly as much without that."""
    if args.active_rebalancing:
        return []
    times, metric = counts.max() / counts.min(), (args.metric_for_best_model or "").removeprefix("eval_")
    reason = f"the largest class has {times:.1f} times the images of the smallest"
    if times < IMBALANCE_RATIO:
        return [AutoSetting("class_weights", ["none"], reason)]
    if metric in RECALL_METRICS:
        return [AutoSetting("class_weights", ["balanced"], f"{reason}, and {metric} is of recall alone")]
    return [AutoSetting("sampling", "square_root", f"{reason}, and weights would cost precision")]


def format_auto_recipe(settings: list[AutoSetting]) -> str:
    """YAML, with a reason beside each line."""
    lines = ["# Chosen by --auto. hf-mae finetune --recipe takes this file; flags win over it."]
    for choice in settings:
        value = choice.value
        shown = str(value).lower() if isinstance(value, bool) else str(value).replace("'", "")
        lines.append(f"{choice.name + ': ' + shown:36} # {choice.reason}")
    return "\n".join(lines) + "\n"
