"""Stops by signals: SIGTERM saves and leaves, SIGKILL leaves the last checkpoint; either goes on bit for bit."""

import os
import signal
import subprocess
import sys

import pytest
from support.launching import assert_same_weights, environment, flags, has_checkpoint, launch, run, wait_for

from hf_mae.training.preemption import MARK

pytestmark = [pytest.mark.slow, pytest.mark.launch]


@pytest.fixture(scope="module")
def uninterrupted(tiny_pth, toy, tmp_path_factory):
    """What one process and two give when nothing stops them."""
    root = tmp_path_factory.mktemp("uninterrupted")
    for name, config, processes in (("one", "cpu", 1), ("two", "ddp", 2)):
        run(launch(config, processes, *flags(tiny_pth, toy), "--output_dir", root / name))
    return root


def start(command, **settings) -> subprocess.Popen:
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(slow=0.3, **settings)
    )


@pytest.mark.parametrize("name, config, processes", [("one", "cpu", 1), ("two", "ddp", 2)])
def test_killed_between_checkpoints(uninterrupted, tiny_pth, toy, tmp_path, name, config, processes):
    argv = [*flags(tiny_pth, toy), "--output_dir", tmp_path / "run"]
    running = start(launch(config, processes, *argv), **{"LAUNCHED": str(tmp_path)})
    wait_for(has_checkpoint(tmp_path / "run", 5), 120, "a checkpoint")
    wait_for(lambda: running.poll() is not None or _update_after(tmp_path / "run", 5), 60, "the next update")
    _kill_all(running, tmp_path)
    done = run(launch(config, processes, *argv, "--resume_from_checkpoint", "last"))
    assert "Resuming from" in done.stderr
    assert_same_weights(uninterrupted / name, tmp_path / "run")


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


@pytest.mark.parametrize("name, config, processes", [("one", "cpu", 1), ("two", "ddp", 2)])
def test_sigterm_saves_and_leaves(uninterrupted, tiny_pth, toy, tmp_path, name, config, processes):
    argv = [*flags(tiny_pth, toy), "--output_dir", tmp_path / "run"]
    running = start(launch(config, processes, *argv))
    wait_for(has_checkpoint(tmp_path / "run", 5), 120, "a checkpoint")
    if processes == 1:  # accelerate runs a single process as its child, and does not hand signals on
        children = subprocess.run(["pgrep", "-P", str(running.pid)], capture_output=True, text=True).stdout.split()
        os.kill(int(children[0]), signal.SIGTERM)
    else:
        running.terminate()
    printed = running.communicate(timeout=60)[0]
    assert running.returncode != 0 and (tmp_path / "run" / MARK).exists()
    assert "Told to stop (SIGTERM): saving a checkpoint at update" in printed
    assert "go on with the same command and --resume_from_checkpoint last" in printed
    done = run(launch(config, processes, *argv, "--resume_from_checkpoint", "last"))
    assert "Resuming from" in done.stderr and not (tmp_path / "run" / MARK).exists()
    assert_same_weights(uninterrupted / name, tmp_path / "run")


def test_one_process_of_two_is_told(uninterrupted, tiny_pth, toy, tmp_path):
    """The other stops at the same update."""
    argv = [*flags(tiny_pth, toy), "--output_dir", tmp_path / "run"]
    running = start(launch("ddp", 2, *argv))
    wait_for(has_checkpoint(tmp_path / "run", 5), 120, "a checkpoint")
    workers = subprocess.run(["pgrep", "-P", str(running.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(workers[-1]), signal.SIGTERM)
    running.communicate(timeout=60)
    assert (tmp_path / "run" / MARK).exists()
    run(launch("ddp", 2, *argv, "--resume_from_checkpoint", "last"))
    assert_same_weights(uninterrupted / "two", tmp_path / "run")


def test_the_exit_status_says_try_again(tiny_pth, toy, tmp_path):
    command = [sys.executable, "-m", "hf_mae", "finetune", *flags(tiny_pth, toy), "--output_dir", str(tmp_path / "run")]
    running = start(command)
    wait_for(has_checkpoint(tmp_path / "run", 5), 120, "a checkpoint")
    running.terminate()
    printed = running.communicate(timeout=60)[0]
    assert running.returncode == 75 and "Traceback" not in printed
