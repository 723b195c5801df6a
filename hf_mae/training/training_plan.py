"""Plan of a fine-tuning run: images, updates, learning rate, memory, time, and warnings."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
import torch
from accelerate.utils import find_executable_batch_size
from torch.nn import functional as F

from ..compat.torch import AllocatedMemory
from ..compat.transformers import StockModel, use_gradient_checkpointing
from ..data.exclusion_log import Exclusion, ExclusionLog
from ..data.images.cache_eviction import format_bytes, max_cache_bytes
from ..data.splits import selection_split
from ..errors import UsageError
from ..models.introspection import NUM_CHANNELS, get_network, input_size
from ..models.network import Network
from ..settings.arguments import FinetuningArguments
from ..settings.data import DataArguments
from .finetuner import MaeFinetuner
from .messages import TrainingMessage

logger = logging.getLogger(__name__)

CPU_PROFILE_IMAGES = 2, 4  # batch sizes of the steps whose memory is measured on a CPU
CPU_PROFILE_SECONDS = 3.0  # the time of a step is that of the requested batch if it takes less
MOMENT_BYTES = 8  # of AdamW, per trained parameter
MIN_CLASS_IMAGES, MIN_SELECTION_IMAGES = 10, 50  # per class in training; in the split that selects the epoch
IMBALANCE_RATIO = 10  # images of the largest class / images of the smallest
USUAL_LEARNING_RATES = 1e-6, 1e-2  # range of published AdamW learning rates for these models


@dataclass(frozen=True)
class StepProfile:
    """Time and memory of a training step.

    Args:
        images: batch size of the measured step.
        seconds: time of the measured step.
        evaluation_seconds: time to evaluate as many images.
        peak_bytes: memory of a step or an evaluation with the requested batch size, including weights and optimizer
            state.
        measured: whether `peak_bytes` was measured, or estimated from steps of fewer images.
    """

    images: int
    seconds: float
    evaluation_seconds: float
    peak_bytes: int
    measured: bool


@dataclass(frozen=True)
class Device:
    """Device of a training: its type (`cuda`, `cpu`...), the model of a GPU, and the number of processes."""

    type: str
    processes: int
    gpu_name: str | None = None


@dataclass(frozen=True)
class PlanWarning:
    """A setting or property of the data that deserves attention: message and values of its fields."""

    code: TrainingMessage
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Plan of a fine-tuning run.

    Args:
        images: number of images by split and class.
        groups: number of patients or videos by split; None: unknown.
        excluded: excluded images by reason (see `data.exclusion_log`).
        network, image_size: of the model.
        parameters: number of trainable parameters.
        dropped_images: images that each epoch drops because they do not fill a batch.
        images_per_update, learning_rate, epochs, updates, warmup_updates: of the training.
        selection_split: split that is evaluated during the training; None: none.
        metric: metric that selects the epoch; None: the last epoch is kept.
        cache_bytes: size of the cached images on the disk.
        step_profile: profile of a training step; None: not measured.
        warnings: settings and properties of the data that deserve attention.
    """

    images: dict[str, dict[str, int]]
    groups: dict[str, int | None]
    excluded: list[Exclusion]
    network: Network
    image_size: int
    parameters: int
    images_per_update: int
    dropped_images: int
    learning_rate: float
    epochs: float
    updates: int
    warmup_updates: int
    selection_split: str | None
    metric: str | None
    cache_bytes: int
    device: Device
    step_profile: StepProfile | None = None
    warnings: list[PlanWarning] = field(default_factory=list)

    @property
    def seconds_per_epoch(self) -> float | None:
        """Time of training and evaluation; None if the step was not measured."""
        if self.step_profile is None:
            return None
        evaluated = sum(self.images.get(self.selection_split or "", {}).values())
        trained = sum(self.images["train"].values())
        profile = self.step_profile
        return (profile.seconds * trained + profile.evaluation_seconds * evaluated) / profile.images

    def _repr_html_(self) -> str | None:
        """The plan in a notebook; `reporting.plan_summary` adds the renderer."""
        return html_renderers[0](self) if html_renderers else None

    def to_dict(self) -> dict[str, Any]:
        """Returns the plan as JSON."""
        warnings = [{"code": warning.code.name, **warning.values} for warning in self.warnings]
        return asdict(self) | {"warnings": warnings, "seconds_per_epoch": self.seconds_per_epoch}


html_renderers: list[Callable[[Plan], str]] = []


def build_plan(
    trainer: MaeFinetuner,
    splits: Mapping[str, Any],
    exclusion_log: ExclusionLog,
    data_args: DataArguments,
    measure: bool = False,
) -> Plan:
    """Builds the plan of a run from the trainer that will run it, or would.

    Args:
        splits: the final splits.
        exclusion_log: log of the excluded images.
        measure: whether to profile a step on random images; not with `torch_compile`, which takes minutes.

    Raises:
        UsageError: If the training images do not fill a batch, or there is not one class weight per class.
    """
    args, model = trainer.args, trainer.accelerator.unwrap_model(trainer.model)
    images = {split: _count_by_class(dataset) for split, dataset in splits.items()}
    updates = trainer.planned_updates()
    size = input_size(model)
    with trainer.errors_of_setup(), trainer.configure_model():
        parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        step_profile = profile_step(model, args) if measure and not args.torch_compile else None
    metric = (args.metric_for_best_model or "loss").removeprefix("eval_")
    plan = Plan(
        images=images,
        groups={split: _count_groups(dataset) for split, dataset in splits.items()},
        excluded=list(exclusion_log.excluded),
        network=get_network(model),
        image_size=size,
        parameters=parameters,
        images_per_update=args.images_per_update,
        dropped_images=_count_dropped(trainer, sum(images["train"].values())),
        learning_rate=args.absolute_learning_rate,
        epochs=args.num_train_epochs if args.max_steps <= 0 else updates / trainer.updates_per_epoch(updates),
        updates=updates,
        warmup_updates=math.ceil(trainer.warmup_updates(updates)),
        selection_split=selection_split(splits) if args.eval_strategy != "no" else None,
        metric=metric if args.load_best_model_at_end else None,
        cache_bytes=_estimate_cache_bytes(images, data_args, size),
        device=_get_device(args),
        step_profile=step_profile,
    )
    plan.warnings.extend(_find_warnings(plan, args))
    return plan


def _count_dropped(trainer: MaeFinetuner, images: int) -> int:
    """Returns the number of images that each epoch drops because they do not fill a batch."""
    if not trainer.drop_last:
        return 0
    args = trainer.args
    return images - len(trainer.get_train_dataloader()) * args.train_batch_size * args.world_size


def _count_by_class(dataset: Any) -> dict[str, int]:
    names = dataset.features["labels"].names
    return dict(zip(names, np.bincount(dataset["labels"][:], minlength=len(names)).tolist()))


def _count_groups(dataset: Any) -> int | None:
    return len(set(dataset["group"][:])) if "group" in dataset.column_names else None


def _get_device(args: FinetuningArguments) -> Device:
    gpu_name = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else None
    return Device(args.device.type, args.world_size, gpu_name)


def _estimate_cache_bytes(images: dict[str, dict[str, int]], data_args: DataArguments, size: int) -> int:
    """Estimates the size of the cached images: raw pixels of the image size, or of `cache_shortest_edge` at 4:3; JPEG
    takes about a fifth."""
    if not data_args.cache:
        return 0
    held_out = sum(sum(counts.values()) for split, counts in images.items() if split != "train")
    train = sum(images["train"].values())
    edge = data_args.resolve_cache_shortest_edge(size)
    per_image = 3 * size**2 if data_args.transforms == "endoscopy" else 4 * (edge or 0) ** 2
    per_image = per_image if data_args.cache_quality is None else per_image // 5
    return train * per_image + held_out * 3 * size**2


def _find_warnings(plan: Plan, args: FinetuningArguments) -> list[PlanWarning]:
    """Warnings about settings and data, each with a fix."""
    counts, (low, high) = plan.images["train"], USUAL_LEARNING_RATES
    nonzero = [count for count in counts.values() if count]
    ratio, is_rebalanced = max(nonzero) / min(nonzero), args.class_weights != "none" or args.active_rebalancing
    small_classes = [f"{name} ({count})" for name, count in counts.items() if count < MIN_CLASS_IMAGES]
    evaluated = sum(plan.images.get(plan.selection_split or "", {}).values())
    warnings: list[PlanWarning] = []

    def warn(code: TrainingMessage, **values: Any) -> None:
        warnings.append(PlanWarning(code, values))

    if not low <= plan.learning_rate <= high:
        warn(TrainingMessage.UNUSUAL_LEARNING_RATE, rate=plan.learning_rate, low=low, high=high)
    if plan.cache_bytes > (limit := max_cache_bytes()):
        needed, available = format_bytes(plan.cache_bytes), format_bytes(max(0, limit))
        warn(TrainingMessage.CACHE_DOES_NOT_FIT, needed=needed, available=available)
    if plan.images_per_update > sum(nonzero):
        warn(TrainingMessage.BATCH_LARGER_THAN_DATASET, batch_size=plan.images_per_update)
    if plan.warmup_updates >= plan.updates / 2:
        warn(TrainingMessage.LONG_WARMUP, warmup=plan.warmup_updates, updates=plan.updates)
    if small_classes:
        warn(TrainingMessage.SMALL_CLASSES, minimum=MIN_CLASS_IMAGES, classes=small_classes[:5])
    if ratio >= IMBALANCE_RATIO and not is_rebalanced:
        warn(TrainingMessage.CLASS_IMBALANCE, ratio=ratio)
    if 0 < evaluated < MIN_SELECTION_IMAGES:
        warn(TrainingMessage.SMALL_SELECTION_SPLIT, images=evaluated, points=100 / evaluated)
    if plan.groups["train"] is None:
        warn(TrainingMessage.GROUPS_UNKNOWN)
    return warnings


# Profiling


def profile_step(model: StockModel, args: FinetuningArguments) -> StepProfile:
    """Measures time and memory of a training step on random images; restores weights, gradients and random states.

    On a GPU the step has the requested batch size.

    Raises:
        UsageError: If the batch does not fit into the memory; the message suggests a smaller one.
    """
    profile = _profile_on_gpu if args.device.type == "cuda" else _profile_on_cpu
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng())
        stack.enter_context(_restore_model(model))
        if args.gradient_checkpointing:
            stack.enter_context(use_gradient_checkpointing(model, args.gradient_checkpointing_kwargs))
        return profile(model.train(), args)


@contextmanager
def _restore_model(model: StockModel) -> Iterator[None]:
    """After the block, restores the mode and the running statistics of a model, and removes its gradients."""
    training, buffers = model.training, [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        model.train(training)
        model.zero_grad(set_to_none=True)
        for buffer, before in buffers:
            buffer.copy_(before)


def _profile_on_cpu(model: StockModel, args: FinetuningArguments) -> StepProfile:
    step_bytes = _estimate_bytes(_run_step, args.train_batch_size, model, args)
    evaluation_bytes = _estimate_bytes(_run_evaluation, args.eval_batch_size, model, args)
    images, batch_size = CPU_PROFILE_IMAGES[1], args.train_batch_size
    seconds = _measure_seconds(_run_step, model, images, args)
    if seconds / images * batch_size < CPU_PROFILE_SECONDS:
        images, seconds = batch_size, _measure_seconds(_run_step, model, batch_size, args)
    evaluation_seconds = _measure_seconds(_run_evaluation, model, images, args)
    peak_bytes = _state_bytes(model, args) + max(step_bytes, evaluation_bytes)
    return StepProfile(images, seconds, evaluation_seconds, peak_bytes, measured=False)


def _estimate_bytes(run: Callable[..., None], batch_size: int, model: StockModel, args: FinetuningArguments) -> int:
    """Estimates the bytes of a step without weights: those of two batches after each operation, extrapolated."""
    few, more = CPU_PROFILE_IMAGES
    histories = [_record_bytes(run, model, images, args) for images in CPU_PROFILE_IMAGES]
    return round(max(low + (high - low) / (more - few) * (batch_size - few) for low, high in zip(*histories)))


def _record_bytes(run: Callable[..., None], model: StockModel, images: int, args: FinetuningArguments) -> list[int]:
    """Returns the bytes of a step after each of its operations, without weights, and with earlier gradients."""
    run(model, images, args)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    with AllocatedMemory([*model.parameters(), *model.buffers(), *gradients]) as memory:
        run(model, images, args)
    return [count + sum(map(_count_bytes, gradients)) for count in memory.history]


def _measure_seconds(run: Callable[..., None], model: StockModel, images: int, args: FinetuningArguments) -> float:
    _synchronize(args)
    started = perf_counter()
    run(model, images, args)
    _synchronize(args)
    return perf_counter() - started


def _synchronize(args: FinetuningArguments) -> None:
    if args.device.type == "cuda":
        torch.cuda.synchronize(args.device)


def _count_bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _profile_on_gpu(model: StockModel, args: FinetuningArguments) -> StepProfile:
    model.to(args.device)
    batch_size = args.train_batch_size
    fitting = find_max_batch_size(lambda images: _run_step(model, images, args), batch_size)
    if fitting < batch_size:
        raise UsageError(
            TrainingMessage.BATCH_DOES_NOT_FIT,
            batch_size=batch_size,
            gpu=torch.cuda.get_device_name(args.device),
            fitting=fitting,
            effective_batch_size=args.images_per_update,
        )
    torch.cuda.reset_peak_memory_stats(args.device)
    seconds = _measure_seconds(_run_step, model, batch_size, args)
    moments = _state_bytes(model, args) - sum(map(_count_bytes, model.parameters()))
    peak_bytes = torch.cuda.max_memory_allocated(args.device) + moments
    evaluation_seconds = _measure_seconds(_run_evaluation, model, batch_size, args)
    return StepProfile(batch_size, seconds, evaluation_seconds, peak_bytes, measured=True)


def find_max_batch_size(run_step: Callable[[int], object], starting_batch_size: int) -> int:
    """Halves the batch size until a step fits into the memory (`find_executable_batch_size` of accelerate).

    Raises:
        UsageError: If not even one image fits.
    """

    errors: list[RuntimeError] = []

    @find_executable_batch_size(starting_batch_size=starting_batch_size, reduce_batch_size_fn=None)
    def try_batch_size(batch_size: int) -> int:
        try:
            run_step(batch_size)
        except RuntimeError as error:
            errors.append(error)
            raise
        return batch_size

    try:
        return int(try_batch_size())
    except RuntimeError as error:
        if error in errors:
            raise
        raise UsageError(TrainingMessage.NO_BATCH_FITS) from None  # accelerate's error after the last out-of-memory one


def _run_step(model: StockModel, batch_size: int, args: FinetuningArguments) -> None:
    labels = torch.zeros(batch_size, dtype=torch.long, device=args.device)
    loss = F.cross_entropy(_compute_logits(model, batch_size, args).float(), labels)
    loss.backward()
    if args.gradient_accumulation_steps == 1:
        model.zero_grad(set_to_none=True)


def _run_evaluation(model: StockModel, batch_size: int, args: FinetuningArguments) -> None:
    model.eval()
    with torch.no_grad():
        _compute_logits(model, batch_size, args)
    model.train()


def _compute_logits(model: StockModel, batch_size: int, args: FinetuningArguments) -> torch.Tensor:
    size = input_size(model)
    pixels = torch.rand(batch_size, NUM_CHANNELS, size, size, device=args.device)
    dtype = torch.bfloat16 if args.bf16 else torch.float16
    with torch.autocast(args.device.type, dtype, enabled=args.bf16 or args.fp16):
        logits: torch.Tensor = model(pixel_values=pixels).logits
    return logits


def _state_bytes(model: StockModel, args: FinetuningArguments) -> int:
    """Returns the memory of the weights, and of the moments of AdamW and the weight average of the trained ones."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    per_parameter = MOMENT_BYTES + 4 * (args.ema_decay is not None)
    return per_parameter * trained + sum(map(_count_bytes, model.parameters()))
