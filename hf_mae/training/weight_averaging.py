"""Exponential moving average (EMA) of the weights."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..compat.deepspeed import repartition, zero3_shard
from ..errors import UsageError, warn
from ..files.atomic import atomic_write_file
from .layer_decay import strip_wrapper_prefixes
from .messages import TrainingMessage

logger = logging.getLogger(__name__)
FILE_STEM = "average"


class WeightAverage:
    """Exponential moving average of the trainable parameters: d x average + (1 - d) x weights after each update.

    d grows from 2/11 to `decay` as (1 + updates) / (10 + updates), which quickly reduces the influence of the initial
    weights (as TensorFlow's ExponentialMovingAverage with `num_updates`). Each process averages its local parameters
    in float32: all of them under DDP and ZeRO-2, its shard under FSDP2 and ZeRO-3.

    Args:
        model: the unwrapped model, after the engine prepared it.
        decay: between 0 and 1, e.g. 0.999.
        rank: rank of this process.
        should_save: whether this process writes files that are common to all processes.
    """

    def __init__(self, model: nn.Module, decay: float, rank: int = 0, should_save: bool = True):
        self.decay, self.updates = decay, 0
        self._rank, self._should_save = rank, should_save
        self._model = model
        self._parameters = {strip_wrapper_prefixes(name): p for name, p in model.named_parameters() if p.requires_grad}
        with torch.no_grad():
            self._average = {name: _local_tensor(p).float().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Adds the current weights to the average."""
        weights = [_local_tensor(parameter).float() for parameter in self._parameters.values()]
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        get_ema_multi_avg_fn(decay)(list(self._average.values()), weights, self.updates)

    @contextmanager
    def swap_in(self) -> Iterator[None]:
        """Replaces the weights of the model with the average within the block."""
        with torch.no_grad():
            weights = {name: _local_tensor(parameter).clone() for name, parameter in self._parameters.items()}
        self._assign_parameters(self._average)
        try:
            yield
        finally:
            self._assign_parameters(weights)

    def copy_to_model(self) -> None:
        """Replaces the weights of the model with the average."""
        self._assign_parameters(self._average)

    @torch.no_grad()
    def _assign_parameters(self, values: dict[str, Tensor]) -> None:
        for module in self._model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
        for name, parameter in self._parameters.items():
            repartition(parameter)
            _local_tensor(parameter).copy_(values[name])

    # Checkpoints

    @property
    def _is_sharded(self) -> bool:
        """Whether each process saves its own shard (ZeRO-3). A run then resumes with the same number of processes."""
        return any(zero3_shard(parameter) is not None for parameter in self._parameters.values())

    def _file_path(self, folder: Path) -> Path:
        return folder / (f"{FILE_STEM}_{self._rank}.safetensors" if self._is_sharded else f"{FILE_STEM}.safetensors")

    @torch.no_grad()
    def save(self, folder: Path) -> None:
        """Saves the average into a checkpoint. Call it on every process."""
        values = {
            name: _gather_full_tensor(self._average[name], p).contiguous() for name, p in self._parameters.items()
        }
        if self._should_save or self._is_sharded:
            with atomic_write_file(self._file_path(folder)) as temporary:
                save_file(values, temporary, {"average": json.dumps({"updates": self.updates, "decay": self.decay})})

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Loads the average from a checkpoint. Call it on every process.

        Raises:
            UsageError: If the checkpoint has no average, or an average of other parameters.
        """
        path = self._file_path(folder)
        if not path.is_file():
            raise UsageError(TrainingMessage.CHECKPOINT_WITHOUT_AVERAGE, path=folder)
        with safe_open(path, "pt") as file:
            if set(file.keys()) != set(self._average):
                raise UsageError(TrainingMessage.AVERAGE_OF_OTHER_PARAMETERS, path=path)
            metadata = json.loads(file.metadata()["average"])
            for name, parameter in self._parameters.items():
                self._average[name].copy_(_local_shard(file.get_tensor(name), parameter))
        self.updates = metadata["updates"]
        if metadata["decay"] != self.decay:
            warn(logger, TrainingMessage.EMA_DECAY_CHANGED, path=path, saved=metadata["decay"], decay=self.decay)


def check_checkpoint_has_no_average(checkpoint: Path) -> None:
    """Raises UsageError if a checkpoint has an average; for runs without one."""
    if any(checkpoint.glob(f"{FILE_STEM}*.safetensors")):
        raise UsageError(TrainingMessage.CHECKPOINT_WITH_AVERAGE, path=checkpoint)


def _local_tensor(parameter: Tensor) -> Tensor:
    """Returns the local part of a parameter on this process, sharing its memory."""
    if isinstance(parameter, DTensor):
        return parameter.to_local()
    shard = zero3_shard(parameter)
    return parameter.detach() if shard is None else shard


def _gather_full_tensor(local: Tensor, parameter: Tensor) -> Tensor:
    """Gathers the local values of a parameter from all processes (FSDP2); returns the shard under ZeRO-3."""
    if not isinstance(parameter, DTensor):
        return local
    placement = (parameter.device_mesh, parameter.placements)
    return DTensor.from_local(local, *placement, shape=parameter.shape, stride=parameter.stride()).full_tensor()


def _local_shard(full: Tensor, parameter: Tensor) -> Tensor:
    """Returns the local part of a full tensor on this process."""
    if not isinstance(parameter, DTensor):
        return full
    full = full.to(parameter.device)
    return distribute_tensor(full, parameter.device_mesh, parameter.placements).to_local()
