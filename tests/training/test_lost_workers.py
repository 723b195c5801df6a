"""A DataLoader worker that cannot pass a batch ends the run with an error; it does not hang."""

import time

import pytest
import torch
from support.messages import raises
from torch.utils.data import DataLoader

from hf_mae.compat.torch import exit_on_lost_batch
from hf_mae.training.dataloader_signals import make_workers_signal_safe
from hf_mae.workflows import command as command_module
from hf_mae.workflows.messages import WorkflowMessage


class CannotBePassed:
    """A batch whose transfer fails, as without shared memory or with a long TMPDIR."""

    def __reduce__(self):
        raise OSError("AF_UNIX path too long")


@pytest.mark.parametrize("make_safe", [True, False])
def test_a_batch_that_cannot_be_passed_ends_the_loader(make_safe):
    loader = DataLoader(
        range(4), 2, num_workers=1, collate_fn=lambda items: CannotBePassed(), worker_init_fn=exit_on_lost_batch
    )
    if make_safe:
        loader.worker_init_fn = None
        make_workers_signal_safe(loader)
    started = time.time()
    with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid"):
        list(loader)
    assert time.time() - started < 60


@pytest.mark.parametrize("long_path", [True, False])
def test_a_lost_worker_is_an_error_of_the_command(monkeypatch, long_path):
    monkeypatch.setattr("tempfile.tempdir", "/tmp/" + ("x" * 80 if long_path else "x"))
    error = command_module._describe_lost_worker(RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed."))
    with raises(WorkflowMessage.TEMP_PATH_TOO_LONG if long_path else WorkflowMessage.WORKER_LOST):
        raise error


def test_persistent_workers_do_not_change_the_random_numbers_of_the_training():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    loader = make_workers_signal_safe(DataLoader(range(2), num_workers=1, persistent_workers=True))
    assert len(list(loader)) == 2 and torch.equal(torch.rand(2), expected)
