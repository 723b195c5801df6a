"""Checks the learning rates and weight decays of the prepared optimizer (DDP, FSDP2, DeepSpeed ZeRO)."""

import math
from typing import Any

from torch import nn

from ..compat.accelerate import unwrap_optimizer
from ..compat.deepspeed import get_params_with_groups
from .layer_decay import strip_wrapper_prefixes


def read_optimizer_settings(model: nn.Module, optimizer: Any) -> dict[str, dict[str, float]]:
    """Reads the settings of each trainable parameter from the prepared optimizer, by name in the unwrapped model.

    Args:
        model: the model in training, with the parameters of the engine.
        optimizer: the optimizer after `accelerator.prepare`.

    Returns:
        `lr`, `initial_lr` (if a scheduler has set it) and `weight_decay` of each parameter.
    """
    names = {id(parameter): strip_wrapper_prefixes(name) for name, parameter in model.named_parameters()}
    groups = get_params_with_groups(unwrap_optimizer(optimizer))
    keys = ("lr", "initial_lr", "weight_decay")
    return {
        names.get(id(parameter), "an unknown parameter"): {key: float(group[key]) for key in keys if key in group}
        for parameters, group in groups
        for parameter in parameters
    }


def find_optimizer_mismatches(
    requested: dict[str, dict[str, float]], actual: dict[str, dict[str, float]], schedule_factor: float
) -> list[str]:
    """Describes each difference between the optimizer and the requested settings.

    Args:
        requested: `lr` (before the schedule) and `weight_decay` of each parameter.
        actual: result of `read_optimizer_settings`.
        schedule_factor: factor of the schedule at this update.
    """
    phrases = [f"{name} is not in the optimizer" for name in requested if name not in actual]
    phrases += [f"{name} is in the optimizer, but not trainable" for name in actual if name not in requested]
    for name in requested.keys() & actual.keys():
        expected = {
            "lr": requested[name]["lr"] * schedule_factor,
            "initial_lr": requested[name]["lr"],
            "weight_decay": requested[name]["weight_decay"],
        }
        phrases += [
            f"{name} has {key} {value:g} instead of {expected[key]:g}"
            for key, value in actual[name].items()
            if not math.isclose(value, expected[key], rel_tol=1e-6, abs_tol=1e-15)
        ]
    return sorted(phrases)


def format_learning_rates(requested: dict[str, dict[str, float]]) -> str:
    """Formats a table of the learning rate (before the schedule) and the weight decay of every parameter."""
    width = max(map(len, requested))
    lines = [f"{'parameter':<{width}}  learning rate  weight decay"]
    return "\n".join(
        lines + [f"{name:<{width}}  {row['lr']:13.6g}  {row['weight_decay']:12g}" for name, row in requested.items()]
    )
