"""Hardware and package versions of a run."""

import platform
from importlib.metadata import version

from ..settings.limits import count_usable_cores
from .record import Environment, Hardware

PACKAGES = ("torch", "transformers", "timm", "datasets", "accelerate")


def get_environment() -> Environment:
    """Describes this machine and the versions of the main packages."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpu_name = torch.cuda.get_device_name(0) if gpus else None
    hardware = Hardware(count_usable_cores(), platform.machine(), gpus, gpu_name)
    return Environment(hardware, {name: version(name) for name in PACKAGES})
