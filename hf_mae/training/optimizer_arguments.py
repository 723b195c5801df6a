"""`--optim_args`: the arguments of the optimizer that transformers leaves out (for AdamW, all of them)."""

import ast
import inspect
from collections.abc import Mapping
from typing import Any

OWN_FLAGS = {"lr": "--learning_rate", "weight_decay": "--weight_decay"}  # differ between the parameter groups


def read_optimizer_arguments(
    text: str | None, optimizer_class: type, kwargs: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Reads the arguments that transformers has not read itself.

    Args:
        text: `name=value,name=value`.
        kwargs, defaults: arguments that transformers returns with and without this text.

    Raises:
        ValueError: If the optimizer has no such argument, or another flag sets it.
    """
    arguments = dict(item.split("=") for item in (text or "").replace(" ", "").split(",") if item)
    known = inspect.signature(optimizer_class).parameters
    read = {}
    for name, value in arguments.items():
        if name in OWN_FLAGS:
            raise ValueError(f"--optim_args cannot set {name}; pass {OWN_FLAGS[name]}")
        if name in kwargs and kwargs[name] != defaults.get(name):
            continue  # transformers has read it
        if name not in known:
            names = ", ".join(sorted(set(known) - {"params", *OWN_FLAGS}))
            raise ValueError(f"--optim_args: {optimizer_class.__name__} has no argument {name}; it has {names}")
        read[name] = _parse_value(value)
    return read


def _parse_value(text: str) -> Any:
    try:
        return ast.literal_eval(text.capitalize() if text.lower() in ("true", "false", "none") else text)
    except (ValueError, SyntaxError):
        return text
