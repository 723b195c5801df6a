"""SLURM with two nodes on this machine: time limit and preemption do not change the final weights."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.distributed_runs import (
    assert_same_weights,
    finetune_flags,
    free_port,
    has_checkpoint,
    launch_environment,
    wait_for,
)
from support.messages import shows
from support.paths import ROOT, install_debian_packages, load_script, shared_folder

from hf_mae.training.messages import TrainingMessage

pytestmark = [pytest.mark.slow, pytest.mark.slurm]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Starts the controller and two node daemons with the configuration of ../shared/slurm."""
    template = shared_folder("slurm") / "slurm.conf.in"
    if shutil.which("slurmctld") is None or shutil.which("munged") is None:
        install_debian_packages("slurm-wlm", "munge")
    elif os.geteuid() != 0:
        pytest.skip("starting SLURM's daemons needs root")
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "state").mkdir()
    os.makedirs("/run/munge", exist_ok=True)
    shutil.chown("/run/munge", "munge")
    if subprocess.run(["munge", "-n"], capture_output=True).returncode:
        subprocess.run(["su", "-s", "/bin/sh", "munge", "-c", shutil.which("munged")], check=True)
    text = template.read_text().replace("@DIR@", str(folder)).replace("@HOST@", socket.gethostname().split(".")[0])
    for old, new in (("17001", str(free_port())), ("17002", str(free_port()))):
        text = text.replace(old, new)
    (folder / "slurm.conf").write_text(f"{text}\nSlurmctldPort={free_port()}\n")
    settings = {"SLURM_CONF": str(folder / "slurm.conf")}
    before = os.environ.get("SLURM_CONF")
    os.environ |= settings
    try:
        subprocess.run(["slurmctld"], check=True)
        for node in ("n1", "n2"):
            subprocess.run(["slurmd", "-N", node], check=True)
        wait_for(lambda: "idle" in _output("sinfo", "-h", "-o", "%T"), 30, "idle nodes")
        yield folder
    finally:
        subprocess.run(["scancel", "-u", "root"], capture_output=True)
        for pid in folder.glob("*.pid"):
            subprocess.run(["kill", pid.read_text().strip()], capture_output=True)
        os.environ.pop("SLURM_CONF")
        if before:
            os.environ["SLURM_CONF"] = before


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout


def finish(job: str, out: Path) -> None:
    """Starts a requeued job earlier than SLURM (two minutes), repeatedly, until its run is completed.

    An immediate start would fail, because the nodes are still cleaning up.
    """
    end, pending_since = time.monotonic() + 540, None
    while not (out / "all_results.json").exists():
        now = time.monotonic()
        assert now < end, _output("scontrol", "show", "job", job)
        state, reason = (_output("squeue", "-h", "-j", job, "-o", "%T %r").split() + ["", ""])[:2]
        assert state, _output("scontrol", "show", "job", job)
        pending_since = (pending_since or now) if reason == "BeginTime" else None
        if pending_since is not None and now - pending_since > 12:
            subprocess.run(["scontrol", "update", f"jobid={job}", "starttime=now"], capture_output=True)
        time.sleep(1)
    wait_for(lambda: not _output("squeue", "-h", "-j", job).strip(), 60, "the job to end")


def shorten_time_limit(job: str) -> None:
    """Moves the time limit of a running job close to now. SLURM sends the warning one minute before."""
    state, elapsed = _output("squeue", "-h", "-j", job, "-o", "%T %M").split()
    assert state == "RUNNING", state
    minutes = int(elapsed.split(":")[-2]) + 60 * int((elapsed.split(":")[-3:-2] or ["0"])[0])
    subprocess.run(["scontrol", "update", f"jobid={job}", f"TimeLimit={minutes + 2}"], check=True)


def count_restarts(job: str) -> int:
    fields = [field for field in _output("scontrol", "show", "job", job).split() if field.startswith("Restarts=")]
    return int(fields[0].split("=")[1])


def test_a_job_at_its_time_limit_is_requeued_and_completed(slurm, uninterrupted, tiny_pth, toy, tmp_path):
    """scripts/slurm_finetune.sbatch on two nodes: warning, checkpoint, requeue, resume."""
    out, warned = tmp_path / "run", tmp_path / "warned"
    settings = launch_environment(
        step_delay=4.0,  # longer than SLURM needs to detect the time limit
        SLOW_UNTIL=str(warned),
        HF_MAE_HEAD="127.0.0.1",  # the names of the nodes are not host names
        HF_MAE_PORT=str(free_port()),
        HF_MAE_PROCESSES="1",
        HF_MAE_LAUNCH="--mixed_precision no",
    )
    command = ["sbatch", "--parsable", "--nodes", "2", "--time", "30", "--signal", "B:USR1@60"]
    command += ["-D", str(tmp_path), "-o", str(tmp_path / "job.out"), str(ROOT / "scripts" / "slurm_finetune.sbatch")]
    done = subprocess.run(
        [*command, *finetune_flags(tiny_pth, toy), "--output_dir", str(out)],
        capture_output=True,
        text=True,
        env=settings,
        check=True,
    )
    job = done.stdout.strip()
    wait_for(has_checkpoint(out, 5), 240, "a checkpoint")
    shorten_time_limit(job)
    wait_for(lambda: "PENDING" in _output("squeue", "-h", "-j", job, "-o", "%T"), 240, "the job to be requeued")
    warned.touch()
    subprocess.run(["scontrol", "update", f"jobid={job}", "TimeLimit=30"], check=True)
    finish(job, out)
    printed = (tmp_path / "job.out").read_text()
    assert count_restarts(job) >= 1 and "back to the queue" in printed and f"Job {job} (start 1): 2 nodes" in printed
    assert shows(printed, TrainingMessage.STOP_SIGNAL, signal="SIGTERM") and "Resuming from" in printed
    assert "effective batch size 20 = 10 per device x 1 accumulation steps x 2 processes" in printed
    assert_same_weights(uninterrupted, out)


def test_a_preempted_job_is_requeued_and_completed(slurm, uninterrupted, tiny_pth, toy, tmp_path):
    """scripts/submit_finetune.py (submitit) on two nodes; a job of higher priority preempts it."""
    out = tmp_path / "run"
    command = [
        *(sys.executable, str(ROOT / "scripts" / "submit_finetune.py"), "--nodes", "2", "--ngpus", "0"),
        *("--cpus_per_task", "1", "--timeout", "10", "--partition", "low", "--comment", "test", "--job_dir", str(out)),
        *("--port", str(free_port()), "--launch", "--mixed_precision no --main_process_ip 127.0.0.1"),
        *finetune_flags(tiny_pth, toy),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=launch_environment(step_delay=1.0), check=True)
    job = done.stdout.split()[2].rstrip(":")
    wait_for(has_checkpoint(out, 5), 300, "a checkpoint")
    subprocess.run(["sbatch", "-p", "high", "-N2", "-n2", "-o", "/dev/null", "--wrap", "sleep 2"], check=True)
    wait_for(lambda: _output("squeue", "-h", "-j", job, "-o", "%T").strip() == "PENDING", 240, "the preemption")
    finish(job, out)
    assert count_restarts(job) == 1
    logs = "".join(path.read_text() for path in (out / "submitit").glob("*_0_log.*"))
    assert "Resuming from" in logs and "Job completed successfully" in logs
    assert_same_weights(uninterrupted, out)


def test_submitits_local_executor(uninterrupted, tiny_pth, toy, tmp_path):
    """Without SLURM: the job is stopped at its time limit, saves a checkpoint, restarts, and completes."""
    import submitit

    from hf_mae.settings.accelerate_configs import list_launch_configs

    script, out, warned = load_script("submit_finetune"), tmp_path / "run", tmp_path / "warned"
    sys.modules["submit_finetune"] = script  # pickle looks for the class there
    executor = submitit.LocalExecutor(tmp_path / "submitit", max_num_timeout=3)
    executor.update_parameters(timeout_min=9.0)  # a job that is stopped within the first minute counts as timed out
    launching = ["--mixed_precision", "no"]
    work = script.Finetuning(
        finetune_flags(tiny_pth, toy), str(out), 2, str(list_launch_configs()["ddp"]), launching, free_port()
    )
    before = dict(os.environ)
    os.environ |= launch_environment(step_delay=1.0, SLOW_UNTIL=str(warned))
    os.environ["PYTHONPATH"] += f":{ROOT / 'scripts'}"
    try:
        job = executor.submit(work)
        wait_for(has_checkpoint(out, 5), 240, "a checkpoint")
        _warn(tmp_path / "submitit")
        wait_for(lambda: "Requeued job" in job.paths.stderr.read_text() + job.paths.stdout.read_text(), 240, "its end")
        warned.touch()
        job.wait()
    finally:
        os.environ.clear()
        os.environ |= before
    assert job.exception() is None
    assert "Resuming from" in job.stderr() and "this job is timed-out" in job.stdout() + job.stderr()
    assert shows(job.stderr(), TrainingMessage.STOP_SIGNAL, signal="SIGTERM")
    assert_same_weights(uninterrupted, out)


def _warn(folder: Path) -> None:
    """Sends the time-limit signal of submitit to the process of the job."""
    pids = _output("pgrep", "-f", f"submitit.core._submit {folder}").split()
    assert len(pids) == 1, pids
    os.kill(int(pids[0]), signal.SIGUSR2)


@pytest.mark.parametrize(
    "more, message",
    [
        (["--output_dir", "x"], "--job_dir is the output folder"),
        (["--config", "dpp"], "--config must be one of cpu, ddp"),
    ],
)
def test_invalid_arguments_are_rejected(tmp_path, capsys, more, message):
    assert load_script("submit_finetune").main(["--job_dir", str(tmp_path), "--cluster", "local", *more]) == 1
    assert message in capsys.readouterr().err
