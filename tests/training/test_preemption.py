"""Stops by signals: SIGTERM saves and leaves, SIGKILL leaves the last checkpoint; either goes on bit for bit."""

import importlib
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from support.distributed_runs import (
    assert_same_weights,
    build_launch_command,
    finetune_flags,
    has_checkpoint,
    launch_environment,
    run_command,
    wait_for,
)

from hf_mae.cli.main import main
from hf_mae.training.preemption import HANDLED_SIGNALS, STOPPED_FILE, StopOnSignal

pytestmark = [pytest.mark.slow, pytest.mark.launch]


def alone(tiny_pth, toy, out, *more) -> list[str]:
    """A run of one process."""
    return [sys.executable, "-m", "hf_mae", "finetune", *finetune_flags(tiny_pth, toy), "--output_dir", str(out), *more]


@pytest.fixture(scope="module")
def by_one(tiny_pth, toy, tmp_path_factory):
    """What one process gives when nothing stops it."""
    out = tmp_path_factory.mktemp("by_one") / "run"
    run_command(alone(tiny_pth, toy, out))
    return out


def start(command, **settings) -> subprocess.Popen:
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=launch_environment(step_delay=0.3, **settings),
    )


def test_killed_between_checkpoints(uninterrupted, tiny_pth, toy, tmp_path):
    argv = [*finetune_flags(tiny_pth, toy), "--output_dir", tmp_path / "run"]
    running = start(build_launch_command("ddp", 2, *argv), **{"LAUNCHED": str(tmp_path)})
    wait_for(has_checkpoint(tmp_path / "run", 5), 300, "a checkpoint")
    wait_for(lambda: running.poll() is not None or _update_after(tmp_path / "run", 5), 120, "the next update")
    _kill_all(running, tmp_path)
    done = run_command(build_launch_command("ddp", 2, *argv, "--resume_from_checkpoint", "last"))
    assert "Resuming from" in done.stderr
    assert_same_weights(uninterrupted, tmp_path / "run")


def _update_after(out, step: int) -> bool:
    """An update is not written anywhere: a moment after the checkpoint there has been one."""
    import time

    newest = max(path.stat().st_mtime for path in out.glob("checkpoint-*/trainer_state.json"))
    return time.time() - newest > 0.9


def _kill_all(running: subprocess.Popen, mark) -> None:
    """SIGKILL for the launcher and its processes, which are told by their environment."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    ours = f"LAUNCHED={mark}".encode() in file.read().split(b"\0")
                if ours:
                    os.kill(int(entry), signal.SIGKILL)
            except OSError:  # gone already, or not ours to read
                continue
    running.wait()
    running.stdout.close()


def test_sigterm_saves_and_leaves(by_one, tiny_pth, toy, tmp_path):
    """With a status of its own, which says: try again."""
    running = start(alone(tiny_pth, toy, tmp_path / "run"))
    wait_for(has_checkpoint(tmp_path / "run", 5), 300, "a checkpoint")
    running.terminate()
    printed = running.communicate(timeout=240)[0]
    assert running.returncode == 75 and "Traceback" not in printed and (tmp_path / "run" / STOPPED_FILE).exists()
    assert "Told to stop (SIGTERM): saving a checkpoint at update" in printed
    assert "go on with the same command and --resume_from_checkpoint last" in printed
    done = run_command(alone(tiny_pth, toy, tmp_path / "run", "--resume_from_checkpoint", "last"))
    assert "Resuming from" in done.stderr and not (tmp_path / "run" / STOPPED_FILE).exists()
    assert_same_weights(by_one, tmp_path / "run")


@pytest.mark.parametrize("told", ["one process", "the launcher"])
def test_one_process_of_two_is_told(uninterrupted, tiny_pth, toy, tmp_path, told):
    """The other stops at the same update; and both do when their launcher is gone, as SIGUSR1 ends it."""
    argv = [*finetune_flags(tiny_pth, toy), "--output_dir", tmp_path / "run"]
    running = start(build_launch_command("ddp", 2, *argv))
    wait_for(has_checkpoint(tmp_path / "run", 5), 300, "a checkpoint")
    workers = subprocess.run(["pgrep", "-P", str(running.pid)], capture_output=True, text=True).stdout.split()
    if told == "the launcher":
        running.send_signal(signal.SIGUSR1)
    else:
        os.kill(int(workers[-1]), signal.SIGTERM)
    running.communicate(timeout=240)
    assert (tmp_path / "run" / STOPPED_FILE).exists()
    run_command(build_launch_command("ddp", 2, *argv, "--resume_from_checkpoint", "last"))
    assert_same_weights(uninterrupted, tmp_path / "run")


def test_the_first_ctrl_c_saves_and_the_second_leaves():
    """And SIGUSR1 is SLURM's word ahead of the time limit."""
    stop = StopOnSignal()
    args = SimpleNamespace(world_size=1, process_index=0)
    before = [signal.getsignal(number) for number in HANDLED_SIGNALS]
    stop.on_train_begin(args, None, None)
    try:
        for number in (signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
            assert stop.received_signal == number
        stop.received_signal = None
        os.kill(os.getpid(), signal.SIGINT)
        control = SimpleNamespace(should_training_stop=False, should_save=False)
        stop.on_step_end(args, SimpleNamespace(global_step=3, epoch=0.5), control)
        assert stop.is_stopping and control.should_save and control.should_training_stop
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        stop.on_train_end(args, None, None)
    assert [signal.getsignal(number) for number in HANDLED_SIGNALS] == before


def test_a_second_ctrl_c_ends_the_run_with_its_own_status(tiny_pth, toy, tmp_path, monkeypatch, capsys):
    from transformers import DefaultFlowCallback

    def twice(self, args, state, control, **kwargs):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        return control

    before = [signal.getsignal(number) for number in HANDLED_SIGNALS]
    monkeypatch.setattr(DefaultFlowCallback, "on_step_begin", twice)
    assert main(["finetune", *finetune_flags(tiny_pth, toy), "--output_dir", str(tmp_path / "run")]) == 130
    said = capsys.readouterr().err
    assert "hf-mae finetune: Interrupted at update 0. Go on with the same command and --resume" in said
    assert not list((tmp_path / "run").glob("checkpoint-*"))
    assert [signal.getsignal(number) for number in HANDLED_SIGNALS] == before, (
        "a training that broke off listens no more"
    )


def test_a_signal_before_training_is_a_sentence(capsys, monkeypatch, tmp_path):
    def told(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it went on")

    monkeypatch.setattr(importlib.import_module("hf_mae.workflows.plan"), "load_splits", told)
    argv = [
        "--model_name_or_path",
        "somebody/a-model",
        "--data_dir",
        str(tmp_path),
        "--output_dir",
        str(tmp_path / "o"),
    ]
    assert main(["finetune", *argv]) == 75
    assert "told to stop (SIGTERM) while it was not training" in capsys.readouterr().err
