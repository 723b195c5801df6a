"""Learning-rate schedules of transformers, with the warm-up and the final rate that the settings request."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from transformers import SchedulerType, get_scheduler

from ..errors import UsageError, summarize_exception, warn
from ..settings.arguments import MaeTrainingArguments
from .messages import TrainingMessage

logger = logging.getLogger(__name__)

WITHOUT_WARMUP = ("reduce_lr_on_plateau", "greedy")
WITHOUT_ARGUMENTS = ("constant", "constant_with_warmup")  # transformers ignores their arguments
FINAL_RATE_ARGUMENTS = ("min_lr", "min_lr_rate", "min_lr_ratio", "lr_end")


def build_schedule(
    args: MaeTrainingArguments, optimizer: torch.optim.Optimizer, warmup: float, num_training_steps: int
) -> Any:
    """Builds the schedule of `args` for an optimizer whose groups contain their layer scale.

    Args:
        warmup: number of updates (may be fractional).

    Raises:
        UsageError: If transformers does not accept the arguments of the schedule.
    """
    rate = float(getattr(optimizer, "defaults", {}).get("lr", args.absolute_learning_rate))
    name, kwargs = resolve_schedule(args, rate, [group["lr"] for group in optimizer.param_groups], warmup)
    try:
        if name in WITHOUT_ARGUMENTS and kwargs:
            raise ValueError(f"{name} has no arguments")
        return get_scheduler(
            name,
            optimizer=optimizer,
            num_warmup_steps=warmup,  # type: ignore[arg-type]  # may be fractional
            num_training_steps=num_training_steps,
            scheduler_specific_kwargs=kwargs,
        )
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UsageError(
            TrainingMessage.SCHEDULER_UNAVAILABLE,
            name=SchedulerType(args.lr_scheduler_type).value,
            settings=args.lr_scheduler_kwargs or {},
            error=summarize_exception(error),
        ) from None


def resolve_schedule(
    args: MaeTrainingArguments, rate: float, group_rates: Sequence[float], warmup: float
) -> tuple[str, dict[str, Any]]:
    """Returns the name and the arguments of the transformers schedule that ends at `args.min_learning_rate`.

    transformers' `linear` and `cosine` always end at 0, and `constant` has no warm-up. The schedules that replace them
    are equal, except for the end or the warm-up.

    Args:
        rate: learning rate of the head.
        group_rates: learning rate of each parameter group.
    """
    given: Any = args.lr_scheduler_kwargs
    name, kwargs = SchedulerType(args.lr_scheduler_type).value, dict(given or {})
    minimum = args.min_learning_rate
    if name == "constant" and warmup > 0:
        return "constant_with_warmup", kwargs
    if kwargs.keys() & set(FINAL_RATE_ARGUMENTS) or (minimum == 0 and name in ("linear", "cosine")):
        return name, kwargs
    ratio = minimum / rate if rate else 0.0
    minima = [ratio * group_rate for group_rate in group_rates]
    final_rates: dict[str, tuple[str, dict[str, Any]]] = {
        "cosine_with_min_lr": (name, {"min_lr_rate": ratio}),
        "cosine_warmup_with_min_lr": (name, {"min_lr_rate": ratio}),
        "cosine": ("cosine_with_min_lr", {"min_lr_rate": ratio}),
        "linear": ("polynomial", {"lr_end": minimum, "power": 1.0}),
        "polynomial": (name, {"lr_end": minimum}),
        "warmup_stable_decay": (name, {"min_lr_ratio": ratio}),
        "reduce_lr_on_plateau": (name, {"min_lr": minima}),
        "greedy": (name, {"min_lr": minima}),
    }
    name, final_rate = final_rates.get(name, (name, {}))
    return name, final_rate | kwargs


def warn_about_unused_settings(args: MaeTrainingArguments) -> None:
    """Warns about settings that the chosen schedule does not have."""
    name = SchedulerType(args.lr_scheduler_type).value
    ends_elsewhere = name in (*WITHOUT_ARGUMENTS, "inverse_sqrt", "cosine_with_restarts")
    if ends_elsewhere and args.min_learning_rate != type(args).min_learning_rate:
        warn(logger, TrainingMessage.SETTING_WITHOUT_EFFECT, setting="--min_learning_rate", name=name)
    if name in WITHOUT_WARMUP and (args.warmup_steps if args.warmup_steps is not None else args.warmup_epochs):
        warn(logger, TrainingMessage.SETTING_WITHOUT_EFFECT, setting="The warm-up", name=name)
