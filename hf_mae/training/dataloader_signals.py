"""Worker processes that load images, when the whole process group is told to stop.

SLURM, a closed terminal and Ctrl-C send their signal to every process of a group. Workers go on then: they end with the
process that they load for, which saves a checkpoint first and needs their batches until it has.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import BaseContext

from torch.utils.data import DataLoader

from ..compat.torch import exit_worker
from .preemption import HANDLED_SIGNALS


def make_workers_signal_safe(loader: DataLoader) -> DataLoader:
    """The loader (or accelerate's, around another), whose workers leave the signals of a stop alone."""
    own: DataLoader = getattr(loader, "base_dataloader", loader)
    if own.num_workers and hasattr(signal, "sigwaitinfo") and not isinstance(own.worker_init_fn, _SignalSafeInit):
        own.worker_init_fn = _SignalSafeInit(own.worker_init_fn)
        if own.multiprocessing_context is None and multiprocessing.get_start_method() == "fork":
            own.multiprocessing_context = _signal_safe_fork_context()
    return loader


def _signal_safe_fork_context() -> BaseContext:
    from multiprocessing.context import ForkContext, ForkProcess  # Windows has none

    class CalmProcess(ForkProcess):
        def start(self) -> None:
            """The signals wait until the worker has said what it does with them."""
            before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_SIGNALS)
            try:
                super().start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    class CalmFork(ForkContext):
        Process = CalmProcess

    return CalmFork()


@dataclass
class _SignalSafeInit:
    """The beginning of a worker: as it was, and then signals are left alone, but for a SIGTERM of the process that it
    loads for, which ends it."""

    worker_init_fn: Callable[[int], None] | None

    def __call__(self, worker: int) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_SIGNALS)
        parent = multiprocessing.parent_process()  # not `getppid`, which is a fork server's where there is one
        threading.Thread(target=_exit_with_parent, args=(parent.pid if parent else os.getppid(),), daemon=True).start()
        if self.worker_init_fn is not None:
            self.worker_init_fn(worker)


def _exit_with_parent(parent_pid: int) -> None:
    """Waits for a SIGTERM of the parent."""
    while signal.sigwaitinfo(HANDLED_SIGNALS).si_pid != parent_pid:
        pass
    exit_worker()
