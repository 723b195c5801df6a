"""Hardware and package versions of a run."""

import os
import platform
from importlib.metadata import version

from .record import Environment


def get_environment() -> Environment:
    """Describes this machine and the versions of the main packages."""
    names = ("torch", "transformers", "timm", "datasets", "accelerate")
    return Environment(describe_hardware(), ", ".join(f"{name} {version(name)}" for name in names))


def describe_hardware() -> str:
    """Describes the GPUs, or the CPU cores if CUDA is not available."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"
