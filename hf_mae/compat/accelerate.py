"""accelerate: accelerators for inference, FSDP on CPUs, unwrapping without importing DeepSpeed, the wrapped optimizer.

Verified with accelerate 1.10 to 1.15.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.data_loader import SeedableRandomSampler
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState

from .launchers import read_launch
from .torch import wait_for_peers

CHUNK_SIZE = 65_536  # indices per list


def create_inference_accelerator(bf16: bool) -> Accelerator:
    """Creates an accelerator for the processes of the launch; the precision of an earlier run does not remain.

    Args:
        bf16: compute in bfloat16; otherwise in float32, whatever precision the launcher requests.

    Raises:
        UsageError: If the environment contains variables of another launch.
    """
    wait_for_peers(read_launch())
    AcceleratorState._reset_state(reset_partial_state=False)
    return Accelerator(cpu=not torch.accelerator.is_available(), mixed_precision="bf16" if bf16 else "no")


@contextmanager
def enable_fsdp_on_cpu() -> Iterator[None]:
    """Within the block, a new `Accelerator` also uses FSDP on CPUs if the launcher requests it.

    accelerate enables FSDP only for several GPUs, and silently uses DDP on CPUs. Therefore, the distributed type is
    MULTI_GPU within the block, until accelerate sets it to FSDP.
    """
    state = PartialState()
    if not read_launch().uses_fsdp:
        yield
        return
    # FSDP2 also wraps the patch embeddings, whose output is a view; it is not changed in place.
    warnings.filterwarnings("ignore", r"FSDP2-wrapped module .* returned a view tensor")
    before = state.distributed_type
    if before == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU
    try:
        yield
    finally:
        if before == DistributedType.MULTI_CPU and state.distributed_type == DistributedType.MULTI_GPU:
            state.distributed_type = before


def unwrap_without_deepspeed_import(accelerator: Accelerator) -> None:
    """Makes one accelerator unwrap models without importing DeepSpeed, which takes seconds and prints messages.

    If DeepSpeed is installed, accelerate imports it in every `unwrap_model` to check for a DeepSpeed engine.
    """
    unwrap = accelerator.unwrap_model

    def unwrap_model(model: Any, *args: Any, **kwargs: Any) -> Any:
        with skip_deepspeed_import():
            return unwrap(model, *args, **kwargs)

    accelerator.unwrap_model = unwrap_model


@contextmanager
def skip_deepspeed_import() -> Iterator[None]:
    """Prevents accelerate from importing DeepSpeed to unwrap a model; `save_pretrained` also unwraps."""
    from accelerate.utils import other

    original = other.is_deepspeed_available
    other.is_deepspeed_available = lambda: False
    try:
        yield
    finally:
        other.is_deepspeed_available = original


class _LowMemorySampler(SeedableRandomSampler):
    """accelerate's seedable sampler without a list of all indices (190 MB per process for 4.8 million images)."""

    generator: torch.Generator | None

    def __iter__(self) -> Iterator[int]:
        if self.generator is None:
            self.generator = torch.Generator()
        self.generator.manual_seed(self.epoch + self.initial_seed)
        for chunk in torch.randperm(len(self.data_source), generator=self.generator).split(CHUNK_SIZE):
            yield from chunk.tolist()
        self.set_epoch(self.epoch + 1)


def use_low_memory_sampler(loader: Any) -> Any:
    """Reduces the memory of a prepared, shuffling data loader; the order of the samples stays the same."""
    batches = find_batch_sampler(loader)
    sampler: Any = getattr(batches, "sampler", None)
    if type(sampler) is SeedableRandomSampler and not sampler.replacement:
        if sampler.num_samples == len(sampler.data_source):
            sampler.__class__ = _LowMemorySampler
    return loader


class _RemainingSampler(torch.utils.data.Sampler):
    """A sampler without its first indices."""

    def __init__(self, sampler: Any, first: int):
        self.sampler, self.first = sampler, first

    def __iter__(self) -> Iterator[int]:
        return islice(iter(self.sampler), self.first, None)

    def __len__(self) -> int:
        return len(self.sampler) - self.first

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)


@contextmanager
def skip_first_images(loader: Any, images: int) -> Iterator[int]:
    """Within the block, a prepared data loader starts after a number of images, which may end within a batch.

    Yields:
        The number of batches of this process.
    """
    batches = find_batch_sampler(loader)
    sampler, batches.sampler = batches.sampler, _RemainingSampler(batches.sampler, images)
    try:
        yield len(loader)
    finally:
        batches.sampler = sampler


def find_batch_sampler(loader: Any) -> Any:
    """Returns the batch sampler of a prepared loader that has a sampler of indices; None: it has none."""
    batches: Any = loader.batch_sampler
    while batches is not None and not hasattr(batches, "sampler"):
        batches = getattr(batches, "batch_sampler", None)
    return batches


def unwrap_optimizer(optimizer: Any) -> Any:
    """Returns the optimizer in accelerate's wrapper: that of torch, or that of an engine."""
    while isinstance(optimizer, AcceleratedOptimizer):
        optimizer = optimizer.optimizer
    return optimizer
