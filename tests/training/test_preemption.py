"""Stop signals: SIGTERM saves a checkpoint, SIGKILL leaves the last one; both resume bit-exactly."""

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
from support.messages import shows

from hf_mae.cli.main import main
from hf_mae.training.messages import TrainingMessage
from hf_mae.training.preemption import HANDLED_SIGNALS, STOPPED_FILE, StopOnSignal
from hf_mae.workflows.command import NOT_TRAINING_HINT

pytestmark = [pytest.mark.slow, pytest.mark.launch]


def single_process_command(tiny_pth, toy, out, *more) -> list[str]:
    """Command line of a run with one process."""
    return [sys.executable, "-m", "hf_mae", "finetune", *finetune_flags(tiny_pth, toy), "--output_dir", str(out), *more]


@pytest.fixture(scope="module")
def single_process_run(tiny_pth, toy, tmp_path_factory):
    """An uninterrupted run of one process."""
    out = tmp_path_factory.mktemp("single_process") / "run"
    run_command(single_process_command(tiny_pth, toy, out))
    return out


def start(command, **settings) -> subprocess.Popen:
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=launch_environment(step_delay=0.3, **settings),
    )


def test_a_run_that_was_killed_between_checkpoints_resumes(uninterrupted, tiny_pth, toy, tmp_path):
    argv = [*finetune_flags(tiny_pth, toy), "--output_dir", tmp_path / "run"]
    running = start(build_launch_command("ddp", 2, *argv), **{"LAUNCHED": str(tmp_path)})
    wait_for(has_checkpoint(tmp_path / "run", 5), 300, "a checkpoint")
    wait_for(lambda: running.poll() is not None or _update_after(tmp_path / "run", 5), 120, "the next update")
    _kill_all(running, tmp_path)
    done = run_command(build_launch_command("ddp", 2, *argv, "--resume_from_checkpoint", "last"))
    assert "Resuming from" in done.stderr
    assert_same_weights(uninterrupted, tmp_path / "run")


def _update_after(out, step: int) -> bool:
    """Whether the last checkpoint is old enough that another update was made since."""
    import time

    newest = max(path.stat().st_mtime for path in out.glob("checkpoint-*/trainer_state.json"))
    return time.time() - newest > 0.9


def _kill_all(running: subprocess.Popen, mark) -> None:
    """Sends SIGKILL to the launcher and its processes, which have LAUNCHED in their environment."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    is_launched = f"LAUNCHED={mark}".encode() in file.read().split(b"\0")
                if is_launched:
                    os.kill(int(entry), signal.SIGKILL)
            except OSError:  # ended meanwhile, or not readable
                continue
    running.wait()
    running.stdout.close()


def test_sigterm_saves_a_checkpoint_and_exits(single_process_run, tiny_pth, toy, tmp_path):
    """With exit status 75 (EX_TEMPFAIL)."""
    running = start(single_process_command(tiny_pth, toy, tmp_path / "run"))
    wait_for(has_checkpoint(tmp_path / "run", 5), 300, "a checkpoint")
    running.terminate()
    printed = running.communicate(timeout=240)[0]
    assert running.returncode == 75 and "Traceback" not in printed and (tmp_path / "run" / STOPPED_FILE).exists()
    assert shows(printed, TrainingMessage.STOP_SIGNAL, signal="SIGTERM")
    assert shows(printed, TrainingMessage.STOPPED_BY_SIGNAL)
    done = run_command(single_process_command(tiny_pth, toy, tmp_path / "run", "--resume_from_checkpoint", "last"))
    assert "Resuming from" in done.stderr and not (tmp_path / "run" / STOPPED_FILE).exists()
    assert_same_weights(single_process_run, tmp_path / "run")


@pytest.mark.parametrize("target", ["one process", "the launcher"])
def test_both_processes_stop_if_one_receives_a_signal(uninterrupted, tiny_pth, toy, tmp_path, target):
    """Both stop at the same update, also if their launcher ended (SIGUSR1 ends it)."""
    argv = [*finetune_flags(tiny_pth, toy), "--output_dir", tmp_path / "run"]
    running = start(build_launch_command("ddp", 2, *argv))
    wait_for(has_checkpoint(tmp_path / "run", 5), 300, "a checkpoint")
    workers = subprocess.run(["pgrep", "-P", str(running.pid)], capture_output=True, text=True).stdout.split()
    if target == "the launcher":
        running.send_signal(signal.SIGUSR1)
    else:
        os.kill(int(workers[-1]), signal.SIGTERM)
    running.communicate(timeout=240)
    assert (tmp_path / "run" / STOPPED_FILE).exists()
    run_command(build_launch_command("ddp", 2, *argv, "--resume_from_checkpoint", "last"))
    assert_same_weights(uninterrupted, tmp_path / "run")


def test_the_first_ctrl_c_saves_and_the_second_interrupts():
    """SLURM sends SIGUSR1 before the time limit."""
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


def test_a_second_ctrl_c_exits_with_status_130(tiny_pth, toy, tmp_path, monkeypatch, capsys):
    from transformers import DefaultFlowCallback

    def press_ctrl_c_twice(self, args, state, control, **kwargs):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        return control

    before = [signal.getsignal(number) for number in HANDLED_SIGNALS]
    monkeypatch.setattr(DefaultFlowCallback, "on_step_begin", press_ctrl_c_twice)
    assert main(["finetune", *finetune_flags(tiny_pth, toy), "--output_dir", str(tmp_path / "run")]) == 130
    assert "hf-mae finetune: Interrupted at update 0. To resume, repeat the command with" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("checkpoint-*"))
    assert [signal.getsignal(number) for number in HANDLED_SIGNALS] == before, "handlers are restored"


def test_a_signal_before_training_has_a_message(capsys, monkeypatch, tmp_path):
    def send_signal(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal was ignored")

    monkeypatch.setattr(importlib.import_module("hf_mae.data.labelled_data"), "load_splits", send_signal)
    argv = ["--model_name_or_path", "somebody/a-model", "--data_dir", str(tmp_path)]
    assert main(["finetune", *argv, "--output_dir", str(tmp_path / "o")]) == 75
    assert f"interrupted by SIGTERM{NOT_TRAINING_HINT}" in capsys.readouterr().err
