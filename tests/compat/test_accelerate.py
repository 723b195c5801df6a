"""Contract tests of `compat.accelerate`."""

import inspect

import pytest
import torch
from accelerate import Accelerator, DistributedType, PartialState, skip_first_batches
from accelerate.data_loader import SeedableRandomSampler, prepare_data_loader
from accelerate.utils import other
from support.models import tiny_pretrainer

from hf_mae.compat.accelerate import (
    enable_fsdp_on_cpu,
    skip_deepspeed_import,
    unwrap_optimizer,
    unwrap_without_deepspeed_import,
    use_low_memory_sampler,
)
from hf_mae.compat.deepspeed import get_params_with_groups


@pytest.fixture
def cpus(monkeypatch):
    """Sets accelerate's state to several processes on CPUs."""
    state = PartialState(cpu=True)
    before = state.distributed_type
    state.distributed_type = DistributedType.MULTI_CPU
    yield state
    state.distributed_type = before


def test_fsdp_is_enabled_on_cpus_only_within_the_block(cpus, monkeypatch):
    with enable_fsdp_on_cpu():  # not requested
        assert PartialState().distributed_type == DistributedType.MULTI_CPU
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with enable_fsdp_on_cpu():
        assert PartialState().distributed_type == DistributedType.MULTI_GPU
    assert PartialState().distributed_type == DistributedType.MULTI_CPU
    with pytest.raises(RuntimeError), enable_fsdp_on_cpu():
        raise RuntimeError
    assert PartialState().distributed_type == DistributedType.MULTI_CPU
    with enable_fsdp_on_cpu():
        cpus.distributed_type = DistributedType.FSDP  # set by accelerate
    assert PartialState().distributed_type == DistributedType.FSDP


def test_models_are_unwrapped_without_importing_deepspeed(monkeypatch):
    assert "is_deepspeed_available()" in inspect.getsource(other.extract_model_from_parallel)
    calls = []
    monkeypatch.setattr(other, "is_deepspeed_available", lambda: calls.append(1) or False)
    accelerator, model = Accelerator(cpu=True), torch.nn.Linear(1, 1)
    assert accelerator.unwrap_model(model) is model and calls
    calls.clear()
    unwrap_without_deepspeed_import(accelerator)
    assert accelerator.unwrap_model(model) is model and not calls
    assert Accelerator(cpu=True).unwrap_model(model) is model and calls  # other accelerators are not changed


def test_weights_are_saved_without_importing_deepspeed(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(other, "is_deepspeed_available", lambda: calls.append(1) or False)
    model = tiny_pretrainer()
    model.save_pretrained(tmp_path)
    assert calls
    calls.clear()
    with skip_deepspeed_import():
        model.save_pretrained(tmp_path)
    assert not calls and other.is_deepspeed_available() is False and calls  # restored


@pytest.mark.parametrize("processes", [1, 2])
def test_the_low_memory_sampler_keeps_the_order_of_accelerate(processes):
    """In every epoch, and in a data loader that skips the first batches."""

    def loader():
        images = torch.utils.data.TensorDataset(torch.arange(100_003))
        plain = torch.utils.data.DataLoader(images, batch_size=1000, shuffle=True)
        return prepare_data_loader(
            plain,
            num_processes=processes,
            process_index=processes - 1,
            use_seedable_sampler=True,
            data_seed=7,
            put_on_device=False,
        )

    def orders(prepared):
        return [torch.cat([batch for (batch,) in prepared]) for _ in range(2)]

    stock, ours = loader(), use_low_memory_sampler(loader())
    for theirs, order in zip(orders(stock), orders(ours)):
        assert torch.equal(theirs, order)
    assert not torch.equal(*orders(use_low_memory_sampler(loader())))
    skipping = skip_first_batches(use_low_memory_sampler(loader()), 3)
    assert torch.equal(torch.cat([batch for (batch,) in skipping]), orders(loader())[0][3000:])
    sampler = ours.batch_sampler.sampler if processes == 1 else ours.batch_sampler.batch_sampler.sampler
    assert type(sampler) is not SeedableRandomSampler and isinstance(sampler, SeedableRandomSampler)


def test_the_optimizer_is_unwrapped():
    plain = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.1)
    assert unwrap_optimizer(Accelerator(cpu=True).prepare(plain)) is plain and unwrap_optimizer(plain) is plain
    ((parameters, group),) = get_params_with_groups(plain)
    assert group is plain.param_groups[0] and parameters is group["params"]
