"""Settings that `--auto` chooses from the data, the model and the hardware, each with its reason."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import pluralize
from ..settings.arguments import BASE_BATCH_SIZE, FinetuningArguments
from ..settings.training import FinetuningFields
from ..training.training_plan import IMBALANCE_RATIO, updates_per_epoch

MEMORY_REASON = "expected to fit into memory (one step is tried before the first epoch)"
BATCH_SIZE_FLAGS = ("per_device_train_batch_size", "effective_batch_size")
LARGE_HIDDEN_SIZE = 1024  # width of a ViT-L
MIN_UPDATES_PER_EPOCH = 40  # if the batch size stays at 8 or above
EPOCHS_BY_SIZE = ((500, 100), (10_000, 50), (50_000, 30), (200_000, 15))  # (upper bound of the training images, epochs)
MIN_EPOCHS = 8  # for larger datasets
RECALL_METRICS = ("macro_recall", "balanced_accuracy")  # metrics that do not depend on precision


@dataclass(frozen=True)
class AutoSetting:
    """A chosen setting."""

    name: str
    value: Any
    reason: str


def choose_split_settings(splits: Mapping[str, Any]) -> list[AutoSetting]:
    """Chooses the settings that the split of the data depends on."""
    if "validation" in splits:
        return []
    return [
        AutoSetting("val_fraction", 0.2, "selecting the epoch needs a validation split, which the data does not have")
    ]


def choose_settings(
    splits: Mapping[str, Any],
    hidden_size: int,
    image_size: int,
    args: FinetuningArguments,
    explicit: Mapping[str, Any] | None = None,
    micro_batches_per_update: int = 1,
) -> list[AutoSetting]:
    """Chooses all other settings.

    Args:
        splits: the final splits.
        hidden_size, image_size: of the checkpoint.
        args: explicit settings and defaults.
        explicit: explicit settings, by name.
        micro_batches_per_update: processes x accumulation steps.
    """
    labels = np.asarray(splits["train"]["labels"][:])
    counts = np.unique(labels, return_counts=True)[1]
    explicit = explicit or {}
    batch_settings = _choose_batch_size(len(labels), hidden_size, micro_batches_per_update)
    is_large = hidden_size >= LARGE_HIDDEN_SIZE
    return [
        AutoSetting("image_size", image_size, "it is the size of the checkpoint"),
        *_choose_precision_and_workers(hidden_size),
        *batch_settings,
        _choose_learning_rate(_images_per_update(batch_settings, explicit, micro_batches_per_update)),
        *_choose_epochs(len(labels), explicit.get("num_train_epochs")),
        *_choose_rebalancing(counts, args),
        AutoSetting(
            "drop_path",
            0.2 if is_large else 0.1,
            f"the original MAE code uses it for {'large models' if is_large else 'models of this size'}",
        ),
    ]


def _choose_precision_and_workers(hidden_size: int) -> list[AutoSetting]:
    if not torch.cuda.is_available():
        return [AutoSetting("bf16", False, "without a GPU, float32 is exact (--bf16 is faster on some CPUs)")]
    cores = os.cpu_count() or 1
    has_bf16 = torch.cuda.is_bf16_supported()
    precision = AutoSetting("bf16", True, "the GPU supports bfloat16") if has_bf16 else _choose_fp16(hidden_size)
    return [precision, AutoSetting("dataloader_num_workers", min(8, max(1, cores - 1)), f"there are {cores} CPU cores")]


def _choose_fp16(hidden_size: int) -> AutoSetting:
    if hidden_size > LARGE_HIDDEN_SIZE:
        return AutoSetting("fp16", False, "the GPU does not support bfloat16, and fp16 gives NaN losses with a ViT-H")
    return AutoSetting("fp16", True, "the GPU does not support bfloat16")


def _choose_batch_size(images: int, hidden_size: int, micro_batches_per_update: int) -> list[AutoSetting]:
    """A power of two (8 to 64) that gives an epoch some dozens of updates; micro-batches if it exceeds the memory."""
    batch_size = 2 ** int(np.clip(np.floor(np.log2(max(images / MIN_UPDATES_PER_EPOCH, 1))), 3, 6))
    micro_batch_size = min(batch_size, _max_batch_size(hidden_size))
    if micro_batch_size == batch_size:
        reason = _describe_epoch(images, batch_size * micro_batches_per_update)
        return [AutoSetting("per_device_train_batch_size", batch_size, reason)]
    return [
        AutoSetting("per_device_train_batch_size", micro_batch_size, MEMORY_REASON),
        AutoSetting("effective_batch_size", batch_size, _describe_epoch(images, batch_size)),
    ]


def _describe_epoch(images: int, images_per_update: int) -> str:
    updates = updates_per_epoch(images, images_per_update)
    return f"an epoch of {images} images then has {pluralize(updates, 'update')}"


def _images_per_update(
    batch_settings: list[AutoSetting], explicit: Mapping[str, Any], micro_batches_per_update: int
) -> int:
    """Returns the effective batch size that follows from the explicit and the chosen batch sizes."""
    sizes = {setting.name: int(setting.value) for setting in batch_settings}
    sizes |= {name: explicit[name] for name in BATCH_SIZE_FLAGS if explicit.get(name) is not None}
    return sizes.get("effective_batch_size") or sizes["per_device_train_batch_size"] * micro_batches_per_update


def _choose_learning_rate(batch_size: int) -> AutoSetting:
    """The rate of the original code at 256 images, scaled by the square root of the batch size (Malladi et al., 2022).

    The linear rule of SGD gives rates that are too low for the small batches of small datasets (docs/choices.md).
    """
    base = FinetuningFields.base_learning_rate * math.sqrt(BASE_BATCH_SIZE / batch_size)
    reason = f"AdamW's rate scales with the square root of the batch size ({batch_size}), not linearly"
    return AutoSetting("base_learning_rate", float(f"{base:.2g}"), reason)


def _max_batch_size(hidden_size: int) -> int:
    """Estimates the images that fit into the memory of the device; the plan measures it before the first epoch."""
    if not torch.cuda.is_available():
        return 16
    memory = torch.cuda.get_device_properties(0).total_memory / 1e9
    per_image = 0.35 * (hidden_size / 768) ** 2  # GB per image of 224 pixels in bfloat16, without the weights
    return 2 ** int(np.clip(np.floor(np.log2(max(1.0, (0.7 * memory - 3) / per_image))), 0, 6))


def _choose_epochs(images: int, requested: float | None) -> list[AutoSetting]:
    chosen = next((epochs for bound, epochs in EPOCHS_BY_SIZE if images < bound), MIN_EPOCHS)
    epochs = chosen if requested is None else requested
    return [
        AutoSetting("num_train_epochs", epochs, f"there are {images} training images; fewer images need more epochs"),
        AutoSetting("warmup_epochs", epochs / 10, "it is a tenth of the epochs, as in the original MAE code"),
    ]


def _choose_rebalancing(counts: np.ndarray, args: FinetuningArguments) -> list[AutoSetting]:
    """Follows scripts/studies/long_tail.py (docs/measured.md).

    Class weights give the highest recall of rare classes, but low precision. Square-root sampling gives nearly the same
    recall without that loss.
    """
    if args.active_rebalancing:
        return []
    ratio, metric = counts.max() / counts.min(), (args.metric_for_best_model or "").removeprefix("eval_")
    reason = f"the largest class has {ratio:.1f} times as many images as the smallest"
    if ratio < IMBALANCE_RATIO:
        return [AutoSetting("class_weights", ["none"], reason)]
    if metric in RECALL_METRICS:
        return [AutoSetting("class_weights", ["balanced"], f"{reason}, and {metric} depends on recall only")]
    return [AutoSetting("sampling", "square_root", f"{reason}, and class weights would cost precision")]


def format_auto_recipe(settings: list[AutoSetting]) -> str:
    """Formats the settings as YAML, with the reason as a comment on each line."""
    lines = ["# Chosen by --auto. Pass this file to hf-mae finetune --recipe; flags override it."]
    for setting in settings:
        value = setting.value
        text = str(value).lower() if isinstance(value, bool) else str(value).replace("'", "")
        lines.append(f"{setting.name + ': ' + text:36} # {setting.reason}")
    return "\n".join(lines) + "\n"
