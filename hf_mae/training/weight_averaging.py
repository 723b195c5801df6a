"""Averages of the weights, which are evaluated and saved in their place: a moving one, and one of the last epochs."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from ..compat.deepspeed import repartition, zero3_shard
from ..errors import UsageError
from ..files.atomic import atomic_write_file
from .layer_decay import strip_wrapper_prefixes

logger = logging.getLogger(__name__)
FILE_STEM = "average"
_FLAGS = {
    True: "--ema_decay",
    False: "--average_last",
}  # what asks for an average that forgets, and for one that does not


class WeightAverage:
    """An average of the trained parameters.

    With a decay it forgets: after each update, average = d x average + (1 - d) x weights. d grows from 2/11 to `decay`
    as (1 + updates) / (10 + updates), so that the weights that training began with are soon forgotten (as TensorFlow's
    ExponentialMovingAverage with `num_updates`). Without, it is the mean of the weights that it was given; before the
    first, the model has its own. Each process keeps the average, in float32, of what it holds itself: the whole under
    DDP and ZeRO-2, its share under FSDP2 and ZeRO-3.

    Args:
        model: as it is trained, after the engine has prepared it, and unwrapped.
        decay: between 0 and 1, as 0.999; None: the mean.
        rank: of this process.
        saves: whether this process writes what all have in common.
    """

    def __init__(self, model: nn.Module, decay: float | None, rank: int = 0, should_save: bool = True):
        self.decay, self.updates = decay, 0
        self._rank, self._should_save = rank, should_save
        self._model = model
        self._parameters = {strip_wrapper_prefixes(name): p for name, p in model.named_parameters() if p.requires_grad}
        with torch.no_grad():
            self._average = {name: _local_tensor(p).float().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights as they are now."""
        averages = list(self._average.values())
        held = [_local_tensor(parameter).float() for parameter in self._parameters.values()]
        self.updates += 1
        if self.decay is not None:
            decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
            get_ema_multi_avg_fn(decay)(averages, held, self.updates)
        elif self.updates == 1:
            for average, weights in zip(averages, held):
                average.copy_(weights)
        else:
            get_swa_multi_avg_fn()(averages, held, self.updates - 1)

    @contextmanager
    def swap_in(self) -> Iterator[None]:
        """Within the block, the model has the average for its weights."""
        if not self._is_initialized:
            yield
            return
        with torch.no_grad():
            weights = {name: _local_tensor(parameter).clone() for name, parameter in self._parameters.items()}
        self._assign_parameters(self._average)
        try:
            yield
        finally:
            self._assign_parameters(weights)

    def copy_to_model(self) -> None:
        """The model has the average for its weights from here on."""
        if self._is_initialized:
            self._assign_parameters(self._average)

    @property
    def _is_initialized(self) -> bool:
        """Whether there is an average: a mean of nothing is none."""
        return self.decay is not None or self.updates > 0

    @torch.no_grad()
    def _assign_parameters(self, values: dict[str, Tensor]) -> None:
        for module in self._model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
        for name, parameter in self._parameters.items():
            repartition(parameter)
            _local_tensor(parameter).copy_(values[name])

    # In checkpoints

    @property
    def _flag(self) -> str:
        return _FLAGS[self.decay is not None]

    @property
    def _is_sharded(self) -> bool:
        """Whether each process writes its own share: ZeRO-3's, which goes on with as many processes as it began."""
        return any(zero3_shard(parameter) is not None for parameter in self._parameters.values())

    def _path(self, folder: Path) -> Path:
        return folder / (f"{FILE_STEM}_{self._rank}.safetensors" if self._is_sharded else f"{FILE_STEM}.safetensors")

    @torch.no_grad()
    def save(self, folder: Path) -> None:
        """Writes the average into a checkpoint; to be called on every process."""
        values = {
            name: _gather_full_tensor(self._average[name], p).contiguous() for name, p in self._parameters.items()
        }
        if self._should_save or self._is_sharded:
            with atomic_write_file(self._path(folder)) as temporary:
                save_file(values, temporary, {"average": json.dumps({"updates": self.updates, "decay": self.decay})})

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Reads back what `save` wrote.

        Raises:
            UsageError: the checkpoint is of a training without an average, or of other parameters.
        """
        path = self._path(folder)
        if not path.is_file():
            raise UsageError(
                f"{folder} was saved without {self._flag}: a run goes on as it began (leave {self._flag} out, or begin "
                f"a new run from its weights: --model_name_or_path {folder}, another --output_dir)."
            )
        with safe_open(path, "pt") as file:
            if set(file.keys()) != set(self._average):
                raise UsageError(f"{path} is the average of other parameters than those that this run trains.")
            facts = _read_metadata(file)
            if (facts["decay"] is None) != (self.decay is None):
                raise UsageError(f"{folder} was saved with {_FLAGS[self.decay is None]}: a run goes on as it began.")
            for name, parameter in self._parameters.items():
                self._average[name].copy_(_local_shard(file.get_tensor(name), parameter))
        self.updates = facts["updates"]
        if self.decay is not None and facts["decay"] != self.decay:
            logger.warning(
                "%s was averaged with --ema_decay %g, and goes on with %g.", path, facts["decay"], self.decay
            )


def check_checkpoint_has_no_average(checkpoint: Path) -> None:
    """Raises UsageError where a run that goes on without an average began with one."""
    for path in checkpoint.glob(f"{FILE_STEM}*.safetensors"):
        with safe_open(path, "pt") as file:
            flag = _FLAGS[_read_metadata(file)["decay"] is not None]
        raise UsageError(f"{checkpoint} was saved with {flag}: a run goes on as it began, so pass {flag}, too.")


def _read_metadata(file: Any) -> dict[str, Any]:
    """What a file of `save` says of its average: `updates`, `decay`."""
    return json.loads(file.metadata()["average"])


def _local_tensor(parameter: Tensor) -> Tensor:
    """What this process holds of a parameter: its own memory, in place."""
    if isinstance(parameter, DTensor):
        return parameter.to_local()
    part = zero3_shard(parameter)
    return parameter.detach() if part is None else part


def _gather_full_tensor(local: Tensor, parameter: Tensor) -> Tensor:
    """What all processes hold of a parameter, put together; of ZeRO-3 this process's share."""
    if not isinstance(parameter, DTensor):
        return local
    placed = (parameter.device_mesh, parameter.placements)
    return DTensor.from_local(local, *placed, shape=parameter.shape, stride=parameter.stride()).full_tensor()


def _local_shard(full: Tensor, parameter: Tensor) -> Tensor:
    """What this process holds of a value of the whole parameter."""
    if not isinstance(parameter, DTensor):
        return full
    full = full.to(parameter.device)
    return distribute_tensor(full, parameter.device_mesh, parameter.placements).to_local()
