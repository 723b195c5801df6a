"""Training on two nodes: network namespaces connected by a veth pair, with `accelerate launch` in each."""

import json
import os
import shutil
import signal
import subprocess
import sys

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
from support.paths import ROOT

from hf_mae.cli.main import main
from hf_mae.training.messages import TrainingMessage

pytestmark = [pytest.mark.slow, pytest.mark.launch]
NAMES, ADDRESSES = ("hfmae0", "hfmae1"), ("10.77.0.1", "10.77.0.2")


def ip(*argv: str, check: bool = True) -> None:
    subprocess.run(["ip", *argv], check=check, capture_output=True)


@pytest.fixture(scope="module")
def nodes():
    """Two network namespaces that are connected only to each other."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if shutil.which("ip") is None:
        if shutil.which("apt-get") is None:
            pytest.skip("`ip` is missing, and apt-get is not available to install iproute2")
        subprocess.run(["apt-get", "install", "-y", "iproute2"], check=True, capture_output=True)
    for name in NAMES:
        ip("netns", "del", name, check=False)
    try:
        for name in NAMES:
            ip("netns", "add", name)
        ip("link", "add", "hfv0", "netns", NAMES[0], "type", "veth", "peer", "name", "hfv1", "netns", NAMES[1])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces cannot be created ({error.stderr.decode().strip()})")
    for number, (name, address) in enumerate(zip(NAMES, ADDRESSES)):
        ip("-n", name, "addr", "add", f"{address}/24", "dev", f"hfv{number}")
        ip("-n", name, "link", "set", f"hfv{number}", "up")
        ip("-n", name, "link", "set", "lo", "up")
    yield NAMES
    for name in NAMES:
        ip("netns", "del", name, check=False)


def start(rank: int, port: int, argv: list, slow: float = 0.0) -> subprocess.Popen:
    command = [
        *("ip", "netns", "exec", NAMES[rank], sys.executable, "-m", "accelerate.commands.launch"),
        *("--config_file", str(ROOT / "accelerate_configs" / "multi_node.yaml"), "--mixed_precision", "no"),
        *("--num_machines", "2", "--num_processes", "2", "--machine_rank", str(rank)),
        *("--main_process_ip", ADDRESSES[0], "--main_process_port", str(port)),
        *("-m", "hf_mae", "finetune", *map(str, argv)),
    ]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=launch_environment(step_delay=slow, GLOO_SOCKET_IFNAME=f"hfv{rank}"),
    )


def test_two_nodes(nodes, uninterrupted, tiny_pth, toy, tmp_path):
    """The result equals that of two processes on one node. If a node fails, the other stops, and both can resume."""
    argv = [*finetune_flags(tiny_pth, toy), "--output_dir", tmp_path / "nodes", "--resume_from_checkpoint", "last"]
    port = free_port()
    first, second = (start(rank, port, argv, slow=0.3) for rank in (0, 1))
    wait_for(has_checkpoint(tmp_path / "nodes", 5), 300, "a checkpoint")
    pids = subprocess.run(["ip", "netns", "pids", NAMES[1]], capture_output=True, text=True).stdout.split()
    for pid in pids:
        os.kill(int(pid), signal.SIGKILL)
    second.communicate()
    printed = first.communicate(timeout=240)[0]
    assert first.returncode != 0
    assert shows(printed, TrainingMessage.PROCESS_LOST, rank=0)

    port = free_port()
    both = [start(rank, port, argv) for rank in (0, 1)]
    for node in both:
        printed = node.communicate(timeout=600)[0]
        assert node.returncode == 0, printed[-3000:]
    assert_same_weights(uninterrupted, tmp_path / "nodes")


def test_an_elastic_launcher_restarts_from_the_last_checkpoint(uninterrupted, tiny_pth, toy, tmp_path):
    """torchrun with a rendezvous: after a process is killed, all processes restart; the result does not change."""
    argv = [*finetune_flags(tiny_pth, toy), "--output_dir", str(tmp_path / "run"), "--resume_from_checkpoint", "last"]
    slow = tmp_path / "killed"
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1:2", "--nproc_per_node", "2"]
    command += ["--max_restarts", "2", "--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{free_port()}"]
    running = subprocess.Popen(
        [*command, "-m", "hf_mae", "finetune", *argv, "--use_cpu", "true"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Without the variable, the processes of torch 2.14 use the store from before the restart.
        env=launch_environment(step_delay=0.3, SLOW_UNTIL=str(slow), TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1"),
    )
    wait_for(has_checkpoint(tmp_path / "run", 5), 300, "a checkpoint")
    os.kill(process_of_rank("1", running.pid), signal.SIGKILL)
    slow.touch()
    printed = running.communicate(timeout=300)[0]
    assert running.returncode == 0, printed[-3000:]
    assert "Resuming from" in printed
    assert_same_weights(uninterrupted, tmp_path / "run")

    shutil.rmtree(tmp_path / "run" / "checkpoint-36")  # one process resumes in the last epoch, after 40 of 60 images
    assert main(["finetune", *argv, "--use_cpu", "true"]) == 0
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    assert (state["epoch"], state["global_step"]) == (12, 37)


def process_of_rank(rank: str, launcher: int) -> int:
    """Process id of the child of a launcher with RANK=rank in its environment."""
    with open(f"/proc/{launcher}/task/{launcher}/children") as file:
        for pid in map(int, file.read().split()):
            with open(f"/proc/{pid}/environ", "rb") as environ:
                if f"RANK={rank}".encode() in environ.read().split(b"\0"):
                    return pid
    raise AssertionError(f"no process of rank {rank}")
