"""What the engines under `accelerate launch` (DDP, FSDP2, DeepSpeed ZeRO) need beyond the Trainer's own handling."""

import math
from typing import Any

from torch import nn

from ..compat.accelerate import unwrap_optimizer
from ..compat.deepspeed import get_params_with_groups
from .layer_decay import strip_wrapper_prefixes


def read_optimizer_settings(model: nn.Module, optimizer: Any) -> dict[str, dict[str, float]]:
    """What the prepared optimizer has for each parameter, by its name in the unwrapped model.

    Args:
        model: the model in training; under DeepSpeed and FSDP2 its parameters are those that the engine holds.
        optimizer: as the Trainer has it after `accelerator.prepare`.

    Returns:
        `lr`, `initial_lr` (where a scheduler has set it) and `weight_decay` for each parameter that is trained.
    """
    names = {id(parameter): strip_wrapper_prefixes(name) for name, parameter in model.named_parameters()}
    groups = get_params_with_groups(unwrap_optimizer(optimizer))
    kept = ("lr", "initial_lr", "weight_decay")
    return {
        names.get(id(parameter), "a parameter that is not of the model"): {
            key: float(group[key]) for key in kept if key in group
        }
        for parameters, group in groups
        for parameter in parameters
    }


def find_optimizer_mismatches(
    requested: dict[str, dict[str, float]], actual: dict[str, dict[str, float]], schedule_factor: float
) -> list[str]:
    """Where the optimizer differs from what was asked for, a phrase each.

    Args:
        requested: `lr` (before the schedule) and `weight_decay` by parameter.
        actual: of `optimizer_settings`.
        schedule_factor: of the schedule at this update.
    """
    phrases = [f"{name} is not in the optimizer" for name in requested if name not in actual]
    phrases += [f"{name} is in the optimizer, but is not trained" for name in actual if name not in requested]
    for name in requested.keys() & actual.keys():
        expected = {
            "lr": requested[name]["lr"] * schedule_factor,
            "initial_lr": requested[name]["lr"],
            "weight_decay": requested[name]["weight_decay"],
        }
        phrases += [
            f"{name} has {key} {value:g} in place of {expected[key]:g}"
            for key, value in actual[name].items()
            if not math.isclose(value, expected[key], rel_tol=1e-6, abs_tol=1e-15)
        ]
    return sorted(phrases)


def format_learning_rates(requested: dict[str, dict[str, float]]) -> str:
    """Learning rate (before the schedule) and weight decay of every parameter."""
    width = max(map(len, requested))
    lines = [f"{'parameter':<{width}}  learning rate  weight decay"]
    return "\n".join(
        lines + [f"{name:<{width}}  {row['lr']:13.6g}  {row['weight_decay']:12g}" for name, row in requested.items()]
    )
