"""Settings that `--auto` chooses from the data, the model and the hardware."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..settings.arguments import BASE_BATCH_SIZE, FinetuningArguments
from ..settings.limits import count_usable_cores
from ..settings.training import FinetuningFields
from ..training.auto_settings import AutoReason, AutoSetting
from ..training.training_plan import IMBALANCE_RATIO

BATCH_SIZE_FLAGS = ("per_device_train_batch_size", "effective_batch_size")
LARGE_HIDDEN_SIZE = 1024  # width of a ViT-L
MIN_UPDATES_PER_EPOCH = 40  # if the batch size stays at 8 or above
EPOCHS_BY_SIZE = ((500, 100), (10_000, 50), (50_000, 30), (200_000, 15))  # (upper bound of the training images, epochs)
MIN_EPOCHS = 8  # for larger datasets
RECALL_METRICS = ("macro_recall", "balanced_accuracy")  # metrics that do not depend on precision


def choose_split_settings(splits: Mapping[str, Any]) -> list[AutoSetting]:
    """Chooses the settings that the split of the data depends on."""
    return [] if "validation" in splits else [AutoSetting("val_fraction", 0.2, AutoReason.NO_VALIDATION_SPLIT)]


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
        AutoSetting("image_size", image_size, AutoReason.SIZE_OF_CHECKPOINT),
        *_choose_precision_and_workers(hidden_size),
        *batch_settings,
        _choose_learning_rate(_images_per_update(batch_settings, explicit, micro_batches_per_update)),
        *_choose_epochs(len(labels), explicit.get("num_train_epochs")),
        *_choose_rebalancing(counts, args),
        AutoSetting("drop_path", 0.2 if is_large else 0.1, AutoReason.SIZE_OF_MODEL, {"is_large": is_large}),
    ]


def _choose_precision_and_workers(hidden_size: int) -> list[AutoSetting]:
    if not torch.cuda.is_available():
        return [AutoSetting("bf16", False, AutoReason.NO_GPU)]
    cores = count_usable_cores()
    has_bf16 = torch.cuda.is_bf16_supported()
    precision = AutoSetting("bf16", True, AutoReason.BFLOAT16) if has_bf16 else _choose_fp16(hidden_size)
    workers = min(8, max(1, cores - 1))
    return [precision, AutoSetting("dataloader_num_workers", workers, AutoReason.CPU_CORES, {"cores": cores})]


def _choose_fp16(hidden_size: int) -> AutoSetting:
    if hidden_size > LARGE_HIDDEN_SIZE:
        return AutoSetting("fp16", False, AutoReason.NO_BFLOAT16_FOR_HUGE_MODEL)
    return AutoSetting("fp16", True, AutoReason.NO_BFLOAT16)


def _choose_batch_size(images: int, hidden_size: int, micro_batches_per_update: int) -> list[AutoSetting]:
    """A power of two (8 to 64) that gives an epoch some dozens of updates; micro-batches if it exceeds the memory."""
    batch_size = 2 ** int(np.clip(np.floor(np.log2(max(images / MIN_UPDATES_PER_EPOCH, 1))), 3, 6))
    micro_batch_size = min(batch_size, _max_batch_size(hidden_size))
    if micro_batch_size == batch_size:
        images_per_update = batch_size * micro_batches_per_update
        return [_explain_by_updates("per_device_train_batch_size", batch_size, images, images_per_update)]
    return [
        AutoSetting("per_device_train_batch_size", micro_batch_size, AutoReason.FITS_INTO_MEMORY),
        _explain_by_updates("effective_batch_size", batch_size, images, batch_size),
    ]


def _explain_by_updates(name: str, value: int, images: int, images_per_update: int) -> AutoSetting:
    updates = math.ceil(images / images_per_update)
    return AutoSetting(name, value, AutoReason.UPDATES_PER_EPOCH, {"images": images, "updates": updates})


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
    values = {"batch_size": batch_size}
    return AutoSetting("base_learning_rate", float(f"{base:.2g}"), AutoReason.SQUARE_ROOT_OF_BATCH_SIZE, values)


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
        AutoSetting("num_train_epochs", epochs, AutoReason.TRAINING_IMAGES, {"images": images}),
        AutoSetting("warmup_epochs", epochs / 10, AutoReason.TENTH_OF_EPOCHS),
    ]


def _choose_rebalancing(counts: np.ndarray, args: FinetuningArguments) -> list[AutoSetting]:
    """Follows scripts/studies/long_tail.py (docs/measured.md).

    Class weights give the highest recall of rare classes, but low precision. Square-root sampling gives nearly the same
    recall without that loss.
    """
    if args.active_rebalancing:
        return []
    ratio, metric = counts.max() / counts.min(), (args.metric_for_best_model or "").removeprefix("eval_")
    values = {"ratio": float(ratio)}
    if ratio < IMBALANCE_RATIO:
        return [AutoSetting("class_weights", ["none"], AutoReason.CLASS_RATIO, values)]
    if metric in RECALL_METRICS:
        values_and_metric = values | {"metric": metric}
        return [AutoSetting("class_weights", ["balanced"], AutoReason.IMBALANCE_AND_RECALL, values_and_metric)]
    return [AutoSetting("sampling", "square_root", AutoReason.IMBALANCE_AND_PRECISION, values)]
