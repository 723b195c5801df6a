"""What the engines under `accelerate launch` (DDP, FSDP2, DeepSpeed ZeRO) need beyond the Trainer's own handling."""

import math
from typing import Any

from torch import nn

from ..compat.accelerate import bare_optimizer
from ..compat.deepspeed import parameters_and_groups
from .layer_decay import plain_name


def optimizer_settings(model: nn.Module, optimizer: Any) -> dict[str, dict[str, float]]:
    """What the prepared optimizer has for each parameter, by its name in the unwrapped model.

    Args:
        model: the model in training; under DeepSpeed and FSDP2 its parameters are those that the engine holds.
        optimizer: as the Trainer has it after `accelerator.prepare`.

    Returns:
        `lr`, `initial_lr` (where a scheduler has set it) and `weight_decay` for each parameter that is trained.
    """
    names = {id(parameter): plain_name(name) for name, parameter in model.named_parameters()}
    groups = parameters_and_groups(bare_optimizer(optimizer))
    kept = ("lr", "initial_lr", "weight_decay")
    return {
        names.get(id(parameter), "a parameter that is not of the model"): {
            key: float(group[key]) for key in kept if key in group
        }
        for parameters, group in groups
        for parameter in parameters
    }


def differing_settings(
    asked: dict[str, dict[str, float]], found: dict[str, dict[str, float]], factor: float
) -> list[str]:
    """Where the optimizer differs from what was asked for, a phrase each.

    Args:
        asked: `lr` (before the schedule) and `weight_decay` by parameter.
        found: of `optimizer_settings`.
        factor: of the schedule at this update.
    """
    phrases = [f"{name} is not in the optimizer" for name in asked if name not in found]
    phrases += [f"{name} is in the optimizer, but is not trained" for name in found if name not in asked]
    for name in asked.keys() & found.keys():
        expected = {
            "lr": asked[name]["lr"] * factor,
            "initial_lr": asked[name]["lr"],
            "weight_decay": asked[name]["weight_decay"],
        }
        phrases += [
            f"{name} has {key} {value:g} in place of {expected[key]:g}"
            for key, value in found[name].items()
            if not math.isclose(value, expected[key], rel_tol=1e-6, abs_tol=1e-15)
        ]
    return sorted(phrases)


def learning_rate_table(asked: dict[str, dict[str, float]]) -> str:
    """Learning rate (before the schedule) and weight decay of every parameter."""
    width = max(map(len, asked))
    lines = [f"{'parameter':<{width}}  learning rate  weight decay"]
    return "\n".join(
        lines + [f"{name:<{width}}  {row['lr']:13.6g}  {row['weight_decay']:12g}" for name, row in asked.items()]
    )
