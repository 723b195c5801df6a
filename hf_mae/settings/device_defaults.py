"""Defaults that depend on the machine and do not change results."""

from typing import Any

import torch
from transformers.integrations import is_tensorboard_available


def get_device_defaults() -> dict[str, Any]:
    """Returns the defaults of the training commands on this machine."""
    gpu = torch.cuda.is_available()
    return {
        "use_cpu": not torch.accelerator.is_available(),  # transformers rejects bf16 on a CPU unless this is set
        "dataloader_pin_memory": gpu,
        "dataloader_num_workers": min(8, torch.get_num_threads()) if gpu else 0,
        "report_to": "tensorboard" if is_tensorboard_available() else "none",
    }
