"""Contract tests of `compat.deepspeed`; tests/training/test_engines.py runs DeepSpeed itself."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hf_mae.compat.deepspeed import disable_zero3_init, get_params_with_groups, repartition, zero3_shard


def test_parameters_are_paired_with_the_groups_of_zero_optimizers():
    inner = SimpleNamespace(param_groups=[{"lr": 1}, {"lr": 2}])
    two = SimpleNamespace(bit16_groups=[["a"], ["b"]], optimizer=inner)
    assert get_params_with_groups(two) == [(["a"], {"lr": 1}), (["b"], {"lr": 2})]
    three = SimpleNamespace(sub_group_to_group_id={0: 1, 1: 0}, fp16_groups=[["a"], ["b"]], optimizer=inner)
    assert get_params_with_groups(three) == [(["a"], {"lr": 2}), (["b"], {"lr": 1})]


def test_zero3_parameters_have_the_expected_attributes():
    """The attributes are searched in the source of DeepSpeed, which is not imported."""
    if (spec := importlib.util.find_spec("deepspeed")) is None:
        pytest.skip("DeepSpeed is not installed")
    zero = Path(spec.submodule_search_locations[0]) / "runtime" / "zero"
    source = (zero / "partition_parameters.py").read_text()
    for line in ("param.ds_tensor = ", "param.ds_status = ", "param.partition = partition", "AVAILABLE = 1"):
        assert line in source, line
    parameter = torch.nn.Parameter(torch.zeros(2))
    assert zero3_shard(parameter) is None
    repartition(parameter)
    parameter.ds_tensor, parameter.ds_status = torch.ones(1), SimpleNamespace(name="AVAILABLE")
    parameter.partition = lambda: setattr(parameter, "ds_status", SimpleNamespace(name="NOT_AVAILABLE"))
    repartition(parameter)
    repartition(parameter)
    zero3_shard(parameter).add_(1)
    assert parameter.ds_status.name == "NOT_AVAILABLE" and parameter.ds_tensor.item() == 2


def test_zero3_init_is_disabled_within_the_block(monkeypatch):
    integration, config = importlib.import_module("transformers.integrations.deepspeed"), object()
    monkeypatch.setattr(integration, "_hf_deepspeed_config_weak_ref", config)
    with pytest.raises(RuntimeError), disable_zero3_init():
        assert integration._hf_deepspeed_config_weak_ref is None
        raise RuntimeError
    assert integration._hf_deepspeed_config_weak_ref is config
