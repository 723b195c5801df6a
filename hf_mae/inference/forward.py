"""The forward pass over a dataset: the one loop that computes logits and features."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..compat.torch import exit_on_lost_batch
from ..data.images.torch_datasets import collate
from ..errors import escape_control_characters

if TYPE_CHECKING:
    from accelerate import Accelerator


@torch.no_grad()  # not inference_mode, which would break parameters gathered by FSDP and DeepSpeed
def compute_outputs(
    model: Any,
    images: Any,
    batch_size: int,
    compute: Callable[[Tensor], Sequence[Tensor | np.ndarray]],
    description: str,
    accelerator: "Accelerator | None" = None,
    num_workers: int = 0,
) -> list[np.ndarray]:
    """Computes outputs of a model for every image, in the order of the images.

    Args:
        model: in evaluation mode, on its device.
        images: an `EvalDataset`, or another dataset of `pixel_values`.
        batch_size: images per process and forward pass.
        compute: function of `pixel_values` (batch, channels, height, width), on the device of the model and in its
            precision; returns outputs (batch, ...).
        description: of the progress bar.
        accelerator: distributes the batches over the processes of the launch; None: this process computes all.
        num_workers: processes that load images; 0: this process.

    Returns:
        The outputs (images, ...), on every process.
    """
    loader: Any = torch.utils.data.DataLoader(
        images,
        batch_size,
        collate_fn=collate,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=exit_on_lost_batch,
    )
    if accelerator is not None:
        loader = accelerator.prepare_data_loader(loader)
    is_quiet = accelerator is not None and not accelerator.is_main_process
    batches = []
    for batch in tqdm(
        loader, desc=escape_control_characters(description), unit="batch", delay=1, disable=True if is_quiet else None
    ):
        outputs = [torch.as_tensor(value) for value in compute(batch["pixel_values"].to(model.device, model.dtype))]
        if accelerator is not None:
            outputs = accelerator.gather_for_metrics(outputs)
        batches.append([output.cpu() for output in outputs])
    return [torch.cat(parts).numpy() for parts in zip(*batches, strict=True)]


def predict_logits(
    model: Any,
    images: Any,
    accelerator: "Accelerator",
    batch_size: int,
    num_workers: int = 0,
    autocast: bool = True,
) -> np.ndarray:
    """Computes the logits (images, classes) of a classifier as float32, on every process of the launch.

    Args:
        accelerator: distributes the batches; for the others see `compute_outputs`.
        autocast: compute in the mixed precision of the accelerator; otherwise in the precision of the model.
    """

    def compute(pixel_values: Tensor) -> list[Tensor]:
        with accelerator.autocast() if autocast else nullcontext():
            return [model(pixel_values=pixel_values).logits.float()]

    (logits,) = compute_outputs(model, images, batch_size, compute, "Predicting", accelerator, num_workers)
    return logits
