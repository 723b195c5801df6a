"""Contract tests of `compat.torch`."""

import subprocess
import sys
import time

import pytest
import torch
from support.distributed_runs import free_port
from support.messages import raises

from hf_mae.compat.launchers import LaunchedProcess
from hf_mae.compat.messages import CompatMessage
from hf_mae.compat.torch import get_cpu_generator, wait_for_peers


def test_torch_rand_uses_the_cpu_generator():
    get_cpu_generator().manual_seed(7)
    numbers = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(3), numbers)


def test_a_distributed_process_runs_its_exit_functions_and_keeps_its_status(tmp_path):
    """One process of a gloo group."""
    code = f"""
import atexit, sys
import torch.distributed as distributed
from hf_mae.compat.torch import exit_all_ranks
exit_all_ranks(3)  # the program continues, because it has no group yet
atexit.register(lambda: open({str(tmp_path / "exited")!r}, "w").write("yes"))
distributed.init_process_group("gloo", init_method="file://{tmp_path / "group"}", rank=0, world_size=1)
print("last words")
exit_all_ranks(5)
print("never")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (5, "last words\n"), done.stderr
    assert (tmp_path / "exited").read_text() == "yes"


@pytest.mark.parametrize(("rank", "agent"), [(0, "False"), (1, "False"), (0, "True")])
def test_a_launch_whose_other_processes_are_missing_is_an_error(monkeypatch, rank, agent):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", agent)
    started = time.monotonic()
    with raises(CompatMessage.PEERS_MISSING, num_processes=2):
        wait_for_peers(LaunchedProcess(rank, 2, rank, 2), seconds=0.5)
    assert time.monotonic() - started < 10
    wait_for_peers(LaunchedProcess())


def test_processes_of_a_launch_meet_at_the_store_of_the_launcher(monkeypatch):
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    wait_for_peers(LaunchedProcess(0, 2, 0, 2), seconds=5)
