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
from ..data.ledger import Ledger
from ..data.room import in_words, most_room
from ..data.splits import judge_of
from ..errors import UsageError, counted
from ..evaluation.confusion import TITLES
from ..models.parts import CHANNELS, describe, input_size
from ..settings.arguments import FinetuningArguments
from ..settings.data import DataArguments

logger = logging.getLogger(__name__)

MEASURED_ON_CPU = 2  # images of the step that is measured there
ADAM_BYTES = 16  # a trained parameter in float32, its gradient, and AdamW's two moments
FEW_IMAGES, FEW_JUDGED = 10, 50  # of a class in training; of all that judge the epoch
UNEVEN = 10  # times the images of the smallest class that the largest has
LEARNING_RATES = 1e-6, 1e-2  # between which AdamW's lie in all that is published for these models


@dataclass(frozen=True)
class StepCost:
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
        left_out: images that were found and are not used, and why.
        model: in words.
        parameters: that are trained.
        images_per_update, learning_rate, epochs, updates, warmup_updates: of the training.
        judge: which split chooses the epoch; None: none, and the last is kept.
        metric: by which.
        cache_bytes: that prepared images take on the disk.
        device: that trains.
        average_last: how many epochs' weights are averaged, in place of a choice.
        cost: of a step; None: it was not measured.
        unusual: what a person should look at.
    """

    images: dict[str, dict[str, int]]
    groups: dict[str, int | None]
    left_out: list[tuple[int, str]]
    model: str
    parameters: int
    images_per_update: int
    learning_rate: float
    epochs: float
    updates: int
    warmup_updates: int
    judge: str | None
    metric: str
    cache_bytes: int
    device: str
    average_last: int | None = None
    cost: StepCost | None = None
    unusual: list[str] = field(default_factory=list)

    @property
    def seconds_an_epoch(self) -> float | None:
        """Training and judging; None: the step was not measured."""
        if self.cost is None:
            return None
        judged = sum(self.images.get(self.judge or "", {}).values())
        return self.cost.seconds / self.cost.images * (sum(self.images["train"].values()) + judged / 3)

    def lines(self) -> list[str]:
        """The plan in about ten lines."""
        batch, updates = counted(self.images_per_update, "image"), counted(self.updates, "update")
        found = [
            f"model       {self.model}, {self.parameters / 1e6:.1f} M trained parameters, on {self.device}",
            *(f"{split:11} {self._of_split(split)}" for split in self.images),
            *([f"left out    {'; '.join(f'{count} {why}' for count, why in self.left_out)}"] if self.left_out else []),
            f"update      {batch}, learning rate {self.learning_rate:.3g} of the head",
            f"training    {self.epochs:g} epochs, {updates}, {self.warmup_updates} of them warm-up",
            f"judge       {self._judged()}",
            *([f"cache       about {in_words(self.cache_bytes)} of prepared images"] if self.cache_bytes else []),
        ]
        if self.cost is not None and self.seconds_an_epoch is not None:
            how = "measured" if self.cost.measured else f"estimated from a step of {self.cost.images} images"
            whole = _duration(self.seconds_an_epoch * self.epochs)
            found.append(f"memory      about {in_words(self.cost.peak_bytes)} of a step ({how})")
            found.append(f"time        about {_duration(self.seconds_an_epoch)} an epoch, {whole} in all")
        return [*found, *(f"look at     {text}" for text in self.unusual)]

    def _repr_html_(self) -> str:
        """For a notebook."""
        return f"<pre>{html.escape(chr(10).join(self.lines()))}</pre>"

    def _of_split(self, split: str) -> str:
        counts = self.images[split]
        groups = f" of {self.groups[split]} patients or videos" if self.groups.get(split) else ""
        ranked = sorted(counts.items(), key=lambda item: -item[1])
        ends = ranked if len(ranked) <= 6 else ranked[:3] + ranked[-2:]
        shown = ", ".join(f"{name} {count}" for name, count in ends)
        return f"{counted(sum(counts.values()), 'image')}{groups} in {counted(len(counts), 'class')} ({shown})"

    def _judged(self) -> str:
        if self.average_last is not None:
            return f"nothing: the mean of the last {counted(self.average_last, 'epoch')} is kept"
        if self.judge is None:
            return "nothing: the last epoch is kept (--val_fraction 0.2 holds a share out)"
        return f"{TITLES.get(self.metric, self.metric)} on the {self.judge} split chooses the epoch"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        cost = vars(self.cost) if self.cost else None
        return {**vars(self), "cost": cost, "seconds_an_epoch": self.seconds_an_epoch}


def plan(
    splits: Mapping[str, Any],
    ledger: Ledger,
    model: StockModel,
    data_args: DataArguments,
    args: FinetuningArguments,
    measure: bool = False,
) -> Plan:
    """The plan of a run.

    Args:
        splits: as they are trained and judged on.
        ledger: what was found and left out when they were read.
        model: that is trained.
        measure: run a step on made-up images (not where training takes less memory than that: checkpointing, compiled
            graphs, left out patches, a frozen backbone).
    """
    images = {split: _by_class(dataset) for split, dataset in splits.items()}
    count, per_update = sum(images["train"].values()), args.images_per_update
    batches = (
        count // (args.train_batch_size * args.world_size)
        if args.mixes
        else math.ceil(count / (args.train_batch_size * args.world_size))
    )
    per_epoch = max(1, math.ceil(batches / args.gradient_accumulation_steps))
    updates = args.max_steps if args.max_steps > 0 else math.ceil(per_epoch * args.num_train_epochs)
    epochs = args.num_train_epochs if args.max_steps <= 0 else args.max_steps / per_epoch
    warmup = args.warmup_steps if args.warmup_steps is not None else args.warmup_epochs * per_epoch
    judge, size = judge_of(splits), input_size(model)
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    made = Plan(
        images=images,
        groups={split: _groups(dataset) for split, dataset in splits.items()},
        left_out=[(step["images"], step["why"]) for step in ledger["left_out"]],
        model=f"{describe(model)}, {size} pixels",
        parameters=parameters,
        images_per_update=per_update,
        learning_rate=args.absolute_learning_rate,
        epochs=epochs,
        updates=updates,
        warmup_updates=int(warmup if warmup >= 1 else warmup * updates),
        judge=judge,
        metric=(args.metric_for_best_model or "loss").removeprefix("eval_"),
        cache_bytes=_cache_bytes(images, data_args, size),
        device=_device(args),
        average_last=args.average_last,
        cost=measured_step(model, args) if measure and _is_plain(args) else None,
    )
    made.unusual.extend(_unusual(made, args))
    return made


def _is_plain(args: FinetuningArguments) -> bool:
    """Whether a step of the bare model needs what a step in training needs."""
    return not (args.gradient_checkpointing or args.torch_compile or args.patch_dropout or args.freeze_backbone)


def _by_class(dataset: Any) -> dict[str, int]:
    names = dataset.features["labels"].names
    return dict(zip(names, np.bincount(dataset["labels"][:], minlength=len(names)).tolist()))


def _groups(dataset: Any) -> int | None:
    return len(set(dataset["group"][:])) if "group" in dataset.column_names else None


def _device(args: FinetuningArguments) -> str:
    if args.device.type == "cuda":
        return f"{args.world_size} x {torch.cuda.get_device_name(args.device)}"
    return f"{counted(args.world_size, 'process')} of the {args.device.type.upper()}"


def _cache_bytes(images: dict[str, dict[str, int]], data_args: DataArguments, size: int) -> int:
    """Of the images that are kept prepared: raw pixels of the image size, or of `cache_shortest_edge` and 4:3; JPEG
    takes about a fifth of that."""
    if not data_args.cache:
        return 0
    held_out = sum(sum(counts.values()) for split, counts in images.items() if split != "train")
    train = sum(images["train"].values())
    edge = data_args.kept_shortest_edge(size)
    each = 3 * size**2 if data_args.transforms == "endoscopy" else 4 * (edge or 0) ** 2
    each = each if data_args.cache_quality is None else each // 5
    return train * each + held_out * 3 * size**2


def _unusual(made: Plan, args: FinetuningArguments) -> list[str]:
    """What a person should look at, each with what to do."""
    counts, (low, high) = made.images["train"], LEARNING_RATES
    there = [count for count in counts.values() if count]
    few = [f"{name} ({count})" for name, count in counts.items() if count < FEW_IMAGES]
    judged = sum(made.images.get(made.judge or "", {}).values())
    checks = (
        (
            not low <= made.learning_rate <= high,
            f"a learning rate of {made.learning_rate:.3g}: what is published for these models lies between {low:g} and "
            f"{high:g}",
        ),
        (
            made.cache_bytes > most_room(),
            f"prepared images would take {in_words(made.cache_bytes)}, and there is room for "
            f"{in_words(max(0, most_room()))}: they are decoded anew in every epoch (--cache_limit, HF_HOME)",
        ),
        (made.images_per_update > sum(there), f"an update of {made.images_per_update} images is more than there are"),
        (
            made.warmup_updates >= made.updates / 2,
            f"warm-up takes {made.warmup_updates} of {made.updates} updates (--warmup_epochs)",
        ),
        (bool(few), f"classes with fewer than {FEW_IMAGES} training images: {', '.join(few[:5])}"),
        (
            max(there) >= UNEVEN * min(there) and args.class_weights == "none" and not args.balances,
            f"the largest class has {max(there) / min(there):.0f} times the images of the smallest (--sampling "
            "square_root)",
        ),
        (
            0 < judged < FEW_JUDGED,
            f"{judged} images judge the epoch: one of them moves the accuracy by {100 / max(judged, 1):.1f} points",
        ),
        (
            made.groups["train"] is None,
            "no patients or videos are known: images of one may be on both sides (a group column, or --group_pattern)",
        ),
    )
    return [text for holds, text in checks if holds]


# A step


def measured_step(model: StockModel, args: FinetuningArguments) -> StepCost:
    """Time and memory of a training step on made-up images; weights, gradients and random states stay as they were.

    On a GPU the step has the asked batch.

    Raises:
        UsageError: that batch does not fit into the memory; it says which does.
    """
    with torch.random.fork_rng():
        if args.device.type != "cuda":
            return _on_cpu(model, args)
        return _on_gpu(model, args)


def _on_cpu(model: StockModel, args: FinetuningArguments) -> StepCost:
    images = min(MEASURED_ON_CPU, args.train_batch_size)
    kept = 0

    def note(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        _step(model, images, args)
    started = time.perf_counter()
    _step(model, images, args)
    seconds = time.perf_counter() - started
    peak = _state_bytes(model, args) + kept * args.train_batch_size // images
    return StepCost(images, seconds, peak, measured=False)


def _on_gpu(model: StockModel, args: FinetuningArguments) -> StepCost:
    model.to(args.device)
    asked = args.train_batch_size
    fits = fitting_batch_size(lambda images: _step(model, images, args), asked)
    if fits < asked:
        raise UsageError(
            f"A step of --per_device_train_batch_size {asked} does not fit into the memory of {_device(args)}; one of "
            f"{fits} does: --per_device_train_batch_size {fits} --effective_batch_size {args.images_per_update} trains "
            "with the same updates."
        )
    torch.cuda.reset_peak_memory_stats(args.device)
    torch.cuda.synchronize(args.device)
    started = time.perf_counter()
    _step(model, asked, args)
    torch.cuda.synchronize(args.device)
    seconds = time.perf_counter() - started
    moments = _state_bytes(model, args) - 2 * sum(p.numel() * p.element_size() for p in model.parameters())
    return StepCost(asked, seconds, torch.cuda.max_memory_allocated(args.device) + moments, measured=True)


def fitting_batch_size(step: Callable[[int], object], asked: int) -> int:
    """The largest of asked, asked / 2, ... images whose step fits into the memory (accelerate's finder).

    Raises:
        UsageError: not even one image does.
    """

    @find_executable_batch_size(starting_batch_size=asked, reduce_batch_size_fn=None)
    def tried(batch_size: int) -> int:
        step(batch_size)
        return batch_size

    try:
        return int(tried())
    except RuntimeError as error:
        if "No executable batch size found" not in str(error):
            raise
        raise UsageError(
            "Not even one image fits into the memory: take a smaller model, or a smaller --image_size."
        ) from None


def _step(model: StockModel, images: int, args: FinetuningArguments) -> None:
    size = input_size(model)
    pixels = torch.rand(images, CHANNELS, size, size, device=args.device)
    labels = torch.zeros(images, dtype=torch.long, device=args.device)
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
    each = ADAM_BYTES + 4 * args.averages
    return each * trained + sum(p.numel() * p.element_size() for p in model.parameters() if not p.requires_grad)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
