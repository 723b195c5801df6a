"""Runs with two processes that are slow enough to be interrupted."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from support.paths import ROOT

LAUNCHED_PATH = os.pathsep.join([str(ROOT / "tests" / "support" / "launched"), str(ROOT / "tests")])


def free_port() -> int:
    """Returns an unused port. (Two DeepSpeed jobs with the same port share memory and crash.)"""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch_environment(step_delay: float = 0.0, **more: str) -> dict[str, str]:
    """The environment of a launched program; see `support/launched`."""
    settings = {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    settings |= {"PYTHONPATH": LAUNCHED_PATH} | ({"SLOW_STEP": str(step_delay)} if step_delay else {})
    return os.environ | settings | more


def finetune_flags(tiny_pth: Path, toy: Path, *, epochs: int = 12) -> list[str]:
    """Flags of `hf-mae finetune` without the output folder: 3 updates of 2 x 10 images per epoch."""
    argv = ["--model_name_or_path", tiny_pth, "--data_dir", toy / "labelled", "--num_train_epochs", epochs]
    argv += ["--warmup_epochs", 2, "--per_device_train_batch_size", 10, "--learning_rate", 3e-3, "--report_to", "none"]
    argv += ["--mixup", 0.8, "--save_strategy", "steps", "--save_steps", 5, "--save_total_limit", 2]
    argv += ["--eval_strategy", "no", "--load_best_model_at_end", "false", "--disable_tqdm", "true"]
    return [str(word) for word in argv]


def build_launch_command(
    config: str, processes: int, *argv, port: int | None = None, command: str = "finetune"
) -> list[str]:
    """Command line of `accelerate launch` on this machine."""
    return [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--config_file", str(ROOT / "accelerate_configs" / f"{config}.yaml"), "--num_processes", str(processes)),
        *("--mixed_precision", "no", "--main_process_port", str(port or free_port())),
        *("-m", "hf_mae", command, *map(str, argv)),
    ]


def wait_for(condition, seconds: float, description: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"after {seconds} s, still waiting for {description}"
        time.sleep(0.3)


def has_checkpoint(out: Path, step: int = 1):
    """Condition: there is a complete checkpoint of this update or a later one."""
    return lambda: any(
        int(path.parent.name.split("-")[1]) >= step for path in out.glob("checkpoint-*/trainer_state.json")
    )


def assert_same_weights(one: Path, two: Path) -> None:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def run_command(command: list[str], status: int = 0, **settings) -> subprocess.CompletedProcess:
    done = subprocess.run(command, capture_output=True, text=True, env=launch_environment(**settings), timeout=900)
    assert (done.returncode == 0) == (status == 0), done.stdout[-2000:] + done.stderr[-4000:]
    return done
