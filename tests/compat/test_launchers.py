"""The environment of a launcher is read in one place; variables of another job are rejected."""

import os

import pytest
from support.messages import raises

from hf_mae.compat import launchers
from hf_mae.compat.launchers import LaunchedProcess, read_launch
from hf_mae.compat.messages import CompatMessage
from hf_mae.settings.evaluation import PredictionArguments
from hf_mae.settings.parse import parse_settings

NAMES = (*launchers.RANK, *launchers.WORLD_SIZE, *launchers.LOCAL_RANK, *launchers.LOCAL_WORLD_SIZE)
NAMES += ("MASTER_ADDR", "MASTER_PORT", launchers.PRECISION, *launchers.ENGINES)
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}


@pytest.fixture
def environment(monkeypatch):
    def set_environment(**values):
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    set_environment()
    return set_environment


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, LaunchedProcess()),
        ({"RANK": "1"}, LaunchedProcess()),
        ({"WORLD_SIZE": "1", "RANK": "0"}, LaunchedProcess()),
        ({"WORLD_SIZE": "", "LOCAL_RANK": "-1", "ACCELERATE_USE_FSDP": "false"}, LaunchedProcess()),
        ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, LaunchedProcess()),
        ({"ACCELERATE_MIXED_PRECISION": "bf16", "FSDP_VERSION": "2"}, LaunchedProcess(precision="bf16")),
        (TORCHRUN, LaunchedProcess(1, 4, 1, 4)),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "2"}, LaunchedProcess(1, 4, 1, 2)),
        (TORCHRUN | {"ACCELERATE_USE_FSDP": "true"}, LaunchedProcess(1, 4, 1, 4, uses_fsdp=True)),
        (
            {"PMI_SIZE": "2", "PMI_RANK": "1", "MPI_LOCALRANKID": "0", "MASTER_ADDR": "host", "MASTER_PORT": "1"},
            LaunchedProcess(1, 2, 0, 2),
        ),
    ],
)
def test_the_process_of_a_launch_is_read(environment, values, expected):
    environment(**values)
    assert read_launch() == expected


@pytest.mark.parametrize(
    ("values", "present"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, ["WORLD_SIZE"]),
        ({"LOCAL_RANK": "0"}, ["LOCAL_RANK"]),
        ({"PMI_SIZE": "8", "PMI_RANK": "0"}, ["PMI_SIZE"]),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, ["ACCELERATE_USE_DEEPSPEED"]),
        ({"ACCELERATE_USE_FSDP": "TRUE", "FSDP_VERSION": "2"}, ["ACCELERATE_USE_FSDP"]),
        ({name: value for name, value in TORCHRUN.items() if name != "MASTER_ADDR"}, ["WORLD_SIZE", "LOCAL_RANK"]),
    ],
)
def test_some_variables_of_a_launcher_are_those_of_another_job(environment, values, present):
    environment(**values)
    with raises(CompatMessage.LAUNCHER_ENVIRONMENT_INCOMPLETE, present=present):
        PredictionArguments(model_name_or_path="run", images=["images"])


@pytest.mark.parametrize(
    "values", [{"RANK": "4"}, {"RANK": "-2"}, {"WORLD_SIZE": "two"}, {"LOCAL_RANK": "7"}, {"LOCAL_WORLD_SIZE": "1"}]
)
def test_values_that_no_launcher_sets_are_rejected(environment, values):
    environment(**TORCHRUN | values)
    with raises(CompatMessage.LAUNCHER_ENVIRONMENT_INVALID):
        read_launch()


def test_a_flag_overrides_the_precision_of_the_launcher_and_the_record_has_the_one_that_is_used(environment, tmp_path):
    environment(ACCELERATE_MIXED_PRECISION="bf16")
    found = {}
    for bf16 in (None, True, False):
        flags = {} if bf16 is None else {"bf16": bf16}
        settings = parse_settings(
            "finetune", model_name_or_path="m.pth", data_dir="data", output_dir=str(tmp_path), **flags
        )
        assert settings.overrides.get("bf16", False) == settings.training.bf16
        found[bf16] = settings.training.bf16, settings.training.mixed_precision
    assert found == {None: (True, "bf16"), True: (True, "bf16"), False: (False, "no")}
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"
    environment(ACCELERATE_MIXED_PRECISION="fp8")
    with raises(CompatMessage.UNKNOWN_PRECISION):
        read_launch()


def test_engines_of_a_failed_setup_do_not_remain_in_the_environment(environment):
    with pytest.raises(ValueError), launchers.restore_engines_on_error():
        os.environ["ACCELERATE_USE_FSDP"] = "true"  # set by accelerate
        raise ValueError
    assert read_launch() == LaunchedProcess()
    environment(ACCELERATE_USE_DEEPSPEED="true")
    with pytest.raises(ValueError), launchers.restore_engines_on_error():
        del os.environ["ACCELERATE_USE_DEEPSPEED"]
        raise ValueError
    assert os.environ["ACCELERATE_USE_DEEPSPEED"] == "true"
