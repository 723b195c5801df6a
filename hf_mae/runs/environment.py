"""What a run was made with."""

import os
import platform
from importlib.metadata import version

from .record import Environment


def get_environment() -> Environment:
    """This machine and the versions of what computes."""
    names = ("torch", "transformers", "timm", "datasets", "accelerate")
    return Environment(describe_hardware(), ", ".join(f"{name} {version(name)}" for name in names))


def describe_hardware() -> str:
    """The GPUs, or the cores, in words."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"
