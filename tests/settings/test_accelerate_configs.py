"""Accelerate configs, and the effective batch size with several processes."""

import subprocess

import pytest
import yaml
from support.cli_process import run_cli
from support.distributed_runs import launch_environment
from support.messages import raises
from support.paths import ROOT

from hf_mae import FinetuningArguments
from hf_mae.cli.main import main
from hf_mae.settings.accelerate_configs import list_launch_configs
from hf_mae.settings.messages import SettingsMessage


def test_configs_are_listed_with_their_purpose(capsys):
    configs = list_launch_configs()
    assert list(configs) == ["cpu", "ddp", "fsdp2", "multi_node", "single_gpu", "zero2", "zero3"]
    for name, path in configs.items():
        text = path.read_text()
        assert text.startswith("# ") and yaml.safe_load(text)["mixed_precision"] == ("no" if name == "cpu" else "bf16")
    assert main(["configs"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == str(ROOT / "accelerate_configs") and all(name in printed for name in configs)
    assert main(["configs", "fsdp2"]) == 0
    assert capsys.readouterr().out.strip() == str(configs["fsdp2"])
    assert main(["configs", "fsdp"]) == 2
    assert "did you mean fsdp2?" in capsys.readouterr().err


def arguments(tmp_path, monkeypatch, processes: int, **options) -> FinetuningArguments:
    monkeypatch.setattr(FinetuningArguments, "world_size", property(lambda self: processes))
    return FinetuningArguments(output_dir=tmp_path, use_cpu=True, report_to="none", **options)


@pytest.mark.parametrize("processes, accumulation", [(32, 1), (8, 4), (16, 2), (1, 32)])
def test_the_effective_batch_size_does_not_depend_on_the_number_of_processes(
    tmp_path, monkeypatch, processes, accumulation
):
    """4 nodes x 8 GPUs x 32 images = 1024; one node of 8 GPUs accumulates 4."""
    options = {"per_device_train_batch_size": 32, "effective_batch_size": 1024, "base_learning_rate": 5e-4}
    args = arguments(tmp_path, monkeypatch, processes, **options)
    assert (args.gradient_accumulation_steps, args.images_per_update) == (accumulation, 1024)
    assert args.absolute_learning_rate == pytest.approx(2e-3)


@pytest.mark.parametrize(
    "options, message, attributes",
    [
        ({"effective_batch_size": 1000}, SettingsMessage.BATCH_NOT_A_MULTIPLE, {"step_size": 256, "processes": 8}),
        ({"effective_batch_size": 128}, SettingsMessage.BATCH_NOT_A_MULTIPLE, {"batch_size": 128, "step_size": 256}),
        (
            {"effective_batch_size": 1024, "gradient_accumulation_steps": 2},
            SettingsMessage.BATCH_AND_ACCUMULATION,
            {"steps": 4, "given": 2},
        ),
    ],
)
def test_an_effective_batch_size_that_is_not_a_multiple_is_rejected(
    tmp_path, monkeypatch, options, message, attributes
):
    with raises(message, **attributes):
        arguments(tmp_path, monkeypatch, 8, per_device_train_batch_size=32, **options)


def test_batch_size_and_learning_rates_are_logged_before_training(tiny_pth, toy, tmp_path):
    argv = ["--model_name_or_path", tiny_pth, "--data_dir", toy / "labelled", "--output_dir", tmp_path / "run"]
    argv += ["--per_device_train_batch_size", 8, "--effective_batch_size", 32, "--max_steps", 1]
    done = run_cli("finetune", *argv, "--print_learning_rates")
    assert "effective batch size 32 = 8 per device x 4 accumulation steps" in done.stderr
    assert "0.000125 = 0.001 x 32 / 256" in done.stderr
    rows = {
        line.split()[0]: line.split()[1:] for line in done.stderr.splitlines() if line.startswith(("beit", "class"))
    }
    assert rows["classifier.weight"] == ["0.000125", "0.05"] and rows["classifier.bias"] == ["0.000125", "0"]
    scale = 0.75**4  # the embeddings are below three blocks
    assert float(rows["beit.embeddings.cls_token"][0]) == pytest.approx(0.000125 * scale, rel=1e-4)


def test_tf32_on_a_cpu_is_rejected(tiny_pth, toy, tmp_path):
    argv = ["--model_name_or_path", tiny_pth, "--data_dir", toy / "labelled", "--output_dir", tmp_path / "run"]
    done = run_cli("finetune", *argv, "--tf32", "true", status=2)
    assert "tf32" in done.stderr


@pytest.mark.launch
def test_the_smoke_test_of_configs_passes():
    """Configs with one process; tests/training launches those with two."""
    done = subprocess.run(
        ["bash", ROOT / "scripts" / "smoke_configs.sh", "cpu", "single_gpu"],
        capture_output=True,
        text=True,
        env=launch_environment(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if len(line.split()) == 3]
    assert {row[0]: row[1] for row in rows[1:]} == {"cpu": "pass", "single_gpu": "pass"}
