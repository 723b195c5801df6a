"""What a fine-tuning will do, before it does it: images, updates, learning rate, memory, time, and what is unusual."""

import html
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate.utils import find_executable_batch_size
from torch.nn import functional as F

from ..compat.transformers import StockModel
from ..data.cache_eviction import format_bytes, max_cache_bytes
from ..data.exclusion_log import ExclusionLog
from ..data.splits import selection_split
from ..errors import UsageError, pluralize
from ..evaluation.confusion import TITLES
from ..models.introspection import NUM_CHANNELS, describe_model, input_size
from ..settings.arguments import FinetuningArguments
from ..settings.data import DataArguments

logger = logging.getLogger(__name__)

CPU_PROFILE_IMAGES = 2  # images of the step that is measured there
ADAM_BYTES = 16  # a trained parameter in float32, its gradient, and AdamW's two moments
MIN_CLASS_IMAGES, MIN_SELECTION_IMAGES = 10, 50  # of a class in training; of all that judge the epoch
IMBALANCE_RATIO = 10  # times the images of the smallest class that the largest has
USUAL_LEARNING_RATES = 1e-6, 1e-2  # between which AdamW's lie in all that is published for these models


@dataclass(frozen=True)
class StepProfile:
    """What a training step costs.

    Args:
        images: in the step that was measured.
        seconds: of one step.
        peak_bytes: that the step of the asked batch needs, weights and optimizer included.
        measured: whether that was measured, or is of what autograd keeps for the images of the measured step.
    """

    images: int
    seconds: float
    peak_bytes: int
    measured: bool


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Args:
        images: by split, by class.
        groups: patients or videos by split; None: not known.
        excluded: images that were found and are not used, and why.
        model: in words.
        parameters: that are trained.
        images_per_update, learning_rate, epochs, updates, warmup_updates: of the training.
        selection_split: which split chooses the epoch; None: none, and the last is kept.
        metric: by which.
        cache_bytes: that prepared images take on the disk.
        device: that trains.
        average_last: how many epochs' weights are averaged, in place of a choice.
        step_profile: of a step; None: it was not measured.
        warnings: what a person should look at.
    """

    images: dict[str, dict[str, int]]
    groups: dict[str, int | None]
    excluded: list[tuple[int, str]]
    model: str
    parameters: int
    images_per_update: int
    learning_rate: float
    epochs: float
    updates: int
    warmup_updates: int
    selection_split: str | None
    metric: str
    cache_bytes: int
    device: str
    average_last: int | None = None
    step_profile: StepProfile | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def seconds_per_epoch(self) -> float | None:
        """Training and judging; None: the step was not measured."""
        if self.step_profile is None:
            return None
        judged = sum(self.images.get(self.selection_split or "", {}).values())
        return self.step_profile.seconds / self.step_profile.images * (sum(self.images["train"].values()) + judged / 3)

    def lines(self) -> list[str]:
        """The plan in about ten lines."""
        batch, updates = pluralize(self.images_per_update, "image"), pluralize(self.updates, "update")
        found = [
            f"model       {self.model}, {self.parameters / 1e6:.1f} M trained parameters, on {self.device}",
            *(f"{split:11} {self._describe_split(split)}" for split in self.images),
            *([f"left out    {'; '.join(f'{count} {why}' for count, why in self.excluded)}"] if self.excluded else []),
            f"update      {batch}, learning rate {self.learning_rate:.3g} of the head",
            f"training    {self.epochs:g} epochs, {updates}, {self.warmup_updates} of them warm-up",
            f"judge       {self._describe_selection()}",
            *([f"cache       about {format_bytes(self.cache_bytes)} of prepared images"] if self.cache_bytes else []),
        ]
        if self.step_profile is not None and self.seconds_per_epoch is not None:
            how = (
                "measured"
                if self.step_profile.measured
                else f"estimated from a step of {self.step_profile.images} images"
            )
            whole = _format_duration(self.seconds_per_epoch * self.epochs)
            found.append(f"memory      about {format_bytes(self.step_profile.peak_bytes)} of a step ({how})")
            found.append(f"time        about {_format_duration(self.seconds_per_epoch)} an epoch, {whole} in all")
        return [*found, *(f"look at     {text}" for text in self.warnings)]

    def _repr_html_(self) -> str:
        """For a notebook."""
        return f"<pre>{html.escape(chr(10).join(self.lines()))}</pre>"

    def _describe_split(self, split: str) -> str:
        counts = self.images[split]
        groups = f" of {self.groups[split]} patients or videos" if self.groups.get(split) else ""
        ranked = sorted(counts.items(), key=lambda item: -item[1])
        ends = ranked if len(ranked) <= 6 else ranked[:3] + ranked[-2:]
        shown = ", ".join(f"{name} {count}" for name, count in ends)
        return f"{pluralize(sum(counts.values()), 'image')}{groups} in {pluralize(len(counts), 'class')} ({shown})"

    def _describe_selection(self) -> str:
        if self.average_last is not None:
            return f"nothing: the mean of the last {pluralize(self.average_last, 'epoch')} is kept"
        if self.selection_split is None:
            return "nothing: the last epoch is kept (--val_fraction 0.2 holds a share out)"
        return f"{TITLES.get(self.metric, self.metric)} on the {self.selection_split} split chooses the epoch"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        cost = vars(self.step_profile) if self.step_profile else None
        return {**vars(self), "cost": cost, "seconds_an_epoch": self.seconds_per_epoch}


def build_plan(
    splits: Mapping[str, Any],
    exclusion_log: ExclusionLog,
    model: StockModel,
    data_args: DataArguments,
    args: FinetuningArguments,
    measure: bool = False,
) -> Plan:
    """The plan of a run.

    Args:
        splits: as they are trained and judged on.
        exclusion_log: what was found and left out when they were read.
        model: that is trained.
        measure: run a step on made-up images (not where training takes less memory than that: checkpointing, compiled
            graphs, left out patches, a frozen backbone).
    """
    images = {split: _count_by_class(dataset) for split, dataset in splits.items()}
    count, per_update = sum(images["train"].values()), args.images_per_update
    batches = (
        count // (args.train_batch_size * args.world_size)
        if args.uses_mixup
        else math.ceil(count / (args.train_batch_size * args.world_size))
    )
    per_epoch = max(1, math.ceil(batches / args.gradient_accumulation_steps))
    updates = args.max_steps if args.max_steps > 0 else math.ceil(per_epoch * args.num_train_epochs)
    epochs = args.num_train_epochs if args.max_steps <= 0 else args.max_steps / per_epoch
    warmup = args.warmup_steps if args.warmup_steps is not None else args.warmup_epochs * per_epoch
    judge, size = selection_split(splits), input_size(model)
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    made = Plan(
        images=images,
        groups={split: _count_groups(dataset) for split, dataset in splits.items()},
        excluded=[(step["images"], step["reason"]) for step in exclusion_log["excluded"]],
        model=f"{describe_model(model)}, {size} pixels",
        parameters=parameters,
        images_per_update=per_update,
        learning_rate=args.absolute_learning_rate,
        epochs=epochs,
        updates=updates,
        warmup_updates=int(warmup if warmup >= 1 else warmup * updates),
        selection_split=judge,
        metric=(args.metric_for_best_model or "loss").removeprefix("eval_"),
        cache_bytes=_estimate_cache_bytes(images, data_args, size),
        device=_describe_device(args),
        average_last=args.average_last,
        step_profile=profile_step(model, args) if measure and _is_profilable(args) else None,
    )
    made.warnings.extend(_find_warnings(made, args))
    return made


def _is_profilable(args: FinetuningArguments) -> bool:
    """Whether a step of the bare model needs what a step in training needs."""
    return not (args.gradient_checkpointing or args.torch_compile or args.patch_dropout or args.freeze_backbone)


def _count_by_class(dataset: Any) -> dict[str, int]:
    names = dataset.features["labels"].names
    return dict(zip(names, np.bincount(dataset["labels"][:], minlength=len(names)).tolist()))


def _count_groups(dataset: Any) -> int | None:
    return len(set(dataset["group"][:])) if "group" in dataset.column_names else None


def _describe_device(args: FinetuningArguments) -> str:
    if args.device.type == "cuda":
        return f"{args.world_size} x {torch.cuda.get_device_name(args.device)}"
    return f"{pluralize(args.world_size, 'process')} of the {args.device.type.upper()}"


def _estimate_cache_bytes(images: dict[str, dict[str, int]], data_args: DataArguments, size: int) -> int:
    """Of the images that are kept prepared: raw pixels of the image size, or of `cache_shortest_edge` and 4:3; JPEG
    takes about a fifth of that."""
    if not data_args.cache:
        return 0
    held_out = sum(sum(counts.values()) for split, counts in images.items() if split != "train")
    train = sum(images["train"].values())
    edge = data_args.resolve_cache_shortest_edge(size)
    each = 3 * size**2 if data_args.transforms == "endoscopy" else 4 * (edge or 0) ** 2
    each = each if data_args.cache_quality is None else each // 5
    return train * each + held_out * 3 * size**2


def _find_warnings(plan: Plan, args: FinetuningArguments) -> list[str]:
    """What a person should look at, each with what to do."""
    counts, (low, high) = plan.images["train"], USUAL_LEARNING_RATES
    there = [count for count in counts.values() if count]
    few = [f"{name} ({count})" for name, count in counts.items() if count < MIN_CLASS_IMAGES]
    judged = sum(plan.images.get(plan.selection_split or "", {}).values())
    checks = (
        (
            not low <= plan.learning_rate <= high,
            f"a learning rate of {plan.learning_rate:.3g}: what is published for these models lies between {low:g} and "
            f"{high:g}",
        ),
        (
            plan.cache_bytes > max_cache_bytes(),
            f"prepared images would take {format_bytes(plan.cache_bytes)}, and there is room for "
            f"{format_bytes(max(0, max_cache_bytes()))}: they are decoded anew in every epoch (--cache_limit, HF_HOME)",
        ),
        (plan.images_per_update > sum(there), f"an update of {plan.images_per_update} images is more than there are"),
        (
            plan.warmup_updates >= plan.updates / 2,
            f"warm-up takes {plan.warmup_updates} of {plan.updates} updates (--warmup_epochs)",
        ),
        (bool(few), f"classes with fewer than {MIN_CLASS_IMAGES} training images: {', '.join(few[:5])}"),
        (
            max(there) >= IMBALANCE_RATIO * min(there) and args.class_weights == "none" and not args.active_rebalancing,
            f"the largest class has {max(there) / min(there):.0f} times the images of the smallest (--sampling "
            "square_root)",
        ),
        (
            0 < judged < MIN_SELECTION_IMAGES,
            f"{judged} images judge the epoch: one of them moves the accuracy by {100 / max(judged, 1):.1f} points",
        ),
        (
            plan.groups["train"] is None,
            "no patients or videos are known: images of one may be on both sides (a group column, or --group_pattern)",
        ),
    )
    return [text for holds, text in checks if holds]


# A step


def profile_step(model: StockModel, args: FinetuningArguments) -> StepProfile:
    """Time and memory of a training step on made-up images; weights, gradients and random states stay as they were.

    On a GPU the step has the asked batch.

    Raises:
        UsageError: that batch does not fit into the memory; it says which does.
    """
    with torch.random.fork_rng():
        if args.device.type != "cuda":
            return _profile_on_cpu(model, args)
        return _profile_on_gpu(model, args)


def _profile_on_cpu(model: StockModel, args: FinetuningArguments) -> StepProfile:
    images = min(CPU_PROFILE_IMAGES, args.train_batch_size)
    kept = 0

    def note(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        _run_step(model, images, args)
    started = time.perf_counter()
    _run_step(model, images, args)
    seconds = time.perf_counter() - started
    peak = _state_bytes(model, args) + kept * args.train_batch_size // images
    return StepProfile(images, seconds, peak, measured=False)


def _profile_on_gpu(model: StockModel, args: FinetuningArguments) -> StepProfile:
    model.to(args.device)
    asked = args.train_batch_size
    fits = find_max_batch_size(lambda images: _run_step(model, images, args), asked)
    if fits < asked:
        raise UsageError(
            f"A step of --per_device_train_batch_size {asked} does not fit into the memory of {_describe_device(args)}; one of "
            f"{fits} does: --per_device_train_batch_size {fits} --effective_batch_size {args.images_per_update} trains "
            "with the same updates."
        )
    torch.cuda.reset_peak_memory_stats(args.device)
    torch.cuda.synchronize(args.device)
    started = time.perf_counter()
    _run_step(model, asked, args)
    torch.cuda.synchronize(args.device)
    seconds = time.perf_counter() - started
    moments = _state_bytes(model, args) - 2 * sum(p.numel() * p.element_size() for p in model.parameters())
    return StepProfile(asked, seconds, torch.cuda.max_memory_allocated(args.device) + moments, measured=True)


def find_max_batch_size(run_step: Callable[[int], object], starting_batch_size: int) -> int:
    """The largest of asked, asked / 2, ... images whose step fits into the memory (accelerate's finder).

    Raises:
        UsageError: not even one image does.
    """

    @find_executable_batch_size(starting_batch_size=starting_batch_size, reduce_batch_size_fn=None)
    def tried(batch_size: int) -> int:
        run_step(batch_size)
        return batch_size

    try:
        return int(tried())
    except RuntimeError as error:
        if "No executable batch size found" not in str(error):
            raise
        raise UsageError(
            "Not even one image fits into the memory: take a smaller model, or a smaller --image_size."
        ) from None


def _run_step(model: StockModel, batch_size: int, args: FinetuningArguments) -> None:
    size = input_size(model)
    pixels = torch.rand(batch_size, NUM_CHANNELS, size, size, device=args.device)
    labels = torch.zeros(batch_size, dtype=torch.long, device=args.device)
    half = torch.bfloat16 if args.bf16 else torch.float16
    training = model.training
    model.train()
    with torch.autocast(args.device.type, half, enabled=args.bf16 or args.fp16):
        loss = F.cross_entropy(model(pixel_values=pixels).logits.float(), labels)
    loss.backward()
    model.zero_grad(set_to_none=True)
    model.train(training)


def _state_bytes(model: StockModel, args: FinetuningArguments) -> int:
    """Weights, and of those that are trained gradients, AdamW's moments and the average, if there is one."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    each = ADAM_BYTES + 4 * args.uses_weight_averaging
    return each * trained + sum(p.numel() * p.element_size() for p in model.parameters() if not p.requires_grad)


def _format_duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
