"""The ways to run under `accelerate launch`, and the effective batch that they make."""

import subprocess

import pytest
import yaml
from support.cli_process import run_cli
from support.distributed_runs import launch_environment
from support.paths import ROOT

from hf_mae import FinetuningArguments
from hf_mae.cli.main import main
from hf_mae.errors import UsageError
from hf_mae.settings.accelerate_configs import list_launch_configs


def test_every_way_has_a_config_that_says_when_to_use_it(capsys):
    known = list_launch_configs()
    assert list(known) == ["cpu", "ddp", "fsdp2", "multi_node", "single_gpu", "zero2", "zero3"]
    for name, path in known.items():
        text = path.read_text()
        assert text.startswith("# ") and yaml.safe_load(text)["mixed_precision"] == ("no" if name == "cpu" else "bf16")
    assert main(["configs"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == str(ROOT / "accelerate_configs") and all(name in printed for name in known)
    assert main(["configs", "fsdp2"]) == 0
    assert capsys.readouterr().out.strip() == str(known["fsdp2"])
    assert main(["configs", "fsdp"]) == 2
    assert "did you mean fsdp2?" in capsys.readouterr().err


def arguments(tmp_path, monkeypatch, processes: int, **more) -> FinetuningArguments:
    monkeypatch.setattr(FinetuningArguments, "world_size", property(lambda self: processes))
    return FinetuningArguments(output_dir=tmp_path, use_cpu=True, report_to="none", **more)


@pytest.mark.parametrize("processes, accumulation", [(32, 1), (8, 4), (16, 2), (1, 32)])
def test_the_imagenet_batch_on_any_hardware(tmp_path, monkeypatch, processes, accumulation):
    """4 nodes x 8 GPUs x 32 images = 1024; one node of 8 GPUs accumulates 4."""
    options = {"per_device_train_batch_size": 32, "effective_batch_size": 1024, "base_learning_rate": 5e-4}
    args = arguments(tmp_path, monkeypatch, processes, **options)
    assert (args.gradient_accumulation_steps, args.images_per_update) == (accumulation, 1024)
    assert args.absolute_learning_rate == pytest.approx(2e-3)


@pytest.mark.parametrize(
    "more, message",
    [
        ({"effective_batch_size": 1000}, "1000 is no multiple of the 256 images that 8 processes x 32 images take"),
        ({"effective_batch_size": 128}, "128 is no multiple of the 256 images"),
        ({"effective_batch_size": 1024, "gradient_accumulation_steps": 2}, "asks for 4 accumulation steps"),
    ],
)
def test_what_does_not_divide_is_refused(tmp_path, monkeypatch, more, message):
    with pytest.raises(UsageError, match=message):
        arguments(tmp_path, monkeypatch, 8, per_device_train_batch_size=32, **more)


def test_the_batch_and_the_rule_are_printed_at_the_start(tiny_pth, toy, tmp_path):
    argv = ["--model_name_or_path", tiny_pth, "--data_dir", toy / "labelled", "--output_dir", tmp_path / "run"]
    argv += ["--per_device_train_batch_size", 8, "--effective_batch_size", 32, "--max_steps", 1]
    done = run_cli("finetune", *argv, "--print_learning_rates")
    assert (
        "learning rate 0.000125 = 0.001 x 32 / 256; effective batch 32 = 8 per device x 4 accumulated x 1"
        in done.stderr
    )
    rows = {
        line.split()[0]: line.split()[1:] for line in done.stderr.splitlines() if line.startswith(("beit", "class"))
    }
    assert rows["classifier.weight"] == ["0.000125", "0.05"] and rows["classifier.bias"] == ["0.000125", "0"]
    scale = 0.75**4  # three blocks, and the embeddings below them
    assert float(rows["beit.embeddings.cls_token"][0]) == pytest.approx(0.000125 * scale, rel=1e-4)


def test_tf32_on_a_cpu_is_refused(tiny_pth, toy, tmp_path):
    argv = ["--model_name_or_path", tiny_pth, "--data_dir", toy / "labelled", "--output_dir", tmp_path / "run"]
    done = run_cli("finetune", *argv, "--tf32", "true", status=2)
    assert "tf32" in done.stderr


@pytest.mark.launch
def test_the_smoke_test_of_configs():
    """Of one process; those of two are launched in tests/training, from the same files."""
    done = subprocess.run(
        ["bash", ROOT / "scripts" / "smoke_configs.sh", "cpu", "single_gpu"],
        capture_output=True,
        text=True,
        env=launch_environment(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if len(line.split()) == 3]
    assert {row[0]: row[1] for row in rows[1:]} == {"cpu": "pass", "single_gpu": "pass"}
