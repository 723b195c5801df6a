"""Settings that depend on the machine and change no result."""

from typing import Any

import torch
from transformers.integrations import is_tensorboard_available


def get_device_defaults() -> dict[str, Any]:
    """Defaults of the training verbs on this machine."""
    gpu = torch.cuda.is_available()
    return {
        "use_cpu": not torch.accelerator.is_available(),  # said outright, or transformers refuses bf16 there
        "dataloader_pin_memory": gpu,
        "dataloader_num_workers": min(8, torch.get_num_threads()) if gpu else 0,
        "report_to": "tensorboard" if is_tensorboard_available() else "none",
    }
