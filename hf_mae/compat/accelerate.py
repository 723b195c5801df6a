"""accelerate: FSDP on CPUs, unwrapping without DeepSpeed, and the optimizer beneath its wrappers.

Verified with accelerate 1.10 to 1.15.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.data_loader import SeedableRandomSampler
from accelerate.optimizer import AcceleratedOptimizer

CHUNK_SIZE = 65_536  # numbers of images that are a list at a time


@contextmanager
def enable_fsdp_on_cpu() -> Iterator[None]:
    """Within the block, an `Accelerator` that is made uses FSDP on CPUs too, where the launcher asked for it.

    accelerate takes DDP there instead, without a word: it looks for FSDP only among several devices of an accelerator.
    So while it looks, the processes pass for such; afterwards the type is FSDP, which accelerate itself writes.
    """
    state = PartialState()
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        yield
        return
    # FSDP2 also wraps the patch embeddings, whose output is a view; nothing here changes it in place.
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
    """Lets one accelerator unwrap models without importing DeepSpeed, which takes seconds and prints.

    accelerate imports it at every `unwrap_model` where it is installed, to see whether the model is an engine of it.
    """
    unwrap = accelerator.unwrap_model

    def unwrap_model(model: Any, *args: Any, **kwargs: Any) -> Any:
        with skip_deepspeed_import():
            return unwrap(model, *args, **kwargs)

    accelerator.unwrap_model = unwrap_model


@contextmanager
def skip_deepspeed_import() -> Iterator[None]:
    """Within the block, nobody imports DeepSpeed to unwrap a model; `save_pretrained` unwraps, too."""
    from accelerate.utils import other

    looks = other.is_deepspeed_available
    other.is_deepspeed_available = lambda: False
    try:
        yield
    finally:
        other.is_deepspeed_available = looks


class _LowMemorySampler(SeedableRandomSampler):
    """accelerate's order of images, without a list of all of them: of 4.8 million, that takes 190 MB in every
    process."""

    generator: torch.Generator | None

    def __iter__(self) -> Iterator[int]:
        if self.generator is None:
            self.generator = torch.Generator()
        self.generator.manual_seed(self.epoch + self.initial_seed)
        for part in torch.randperm(len(self.data_source), generator=self.generator).split(CHUNK_SIZE):
            yield from part.tolist()
        self.set_epoch(self.epoch + 1)


def use_low_memory_sampler(loader: Any) -> Any:
    """Lets a prepared loader that shuffles draw the same order in little memory."""
    batches: Any = loader.batch_sampler
    while batches is not None and not hasattr(batches, "sampler"):
        batches = getattr(batches, "batch_sampler", None)
    sampler: Any = getattr(batches, "sampler", None)
    if type(sampler) is SeedableRandomSampler and not sampler.replacement:
        if sampler.num_samples == len(sampler.data_source):
            sampler.__class__ = _LowMemorySampler
    return loader


def unwrap_optimizer(optimizer: Any) -> Any:
    """What accelerate's wrapper holds: torch's optimizer, or an engine's."""
    while isinstance(optimizer, AcceleratedOptimizer):
        optimizer = optimizer.optimizer
    return optimizer
