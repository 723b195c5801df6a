"""DataLoader workers that ignore stop signals.

SLURM, a closed terminal and Ctrl-C send a signal to every process of the group. The training process saves a checkpoint
first and needs batches until then, so its workers continue and end together with it.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import BaseContext

import torch
from torch.utils.data import DataLoader

from ..compat.torch import exit_on_lost_batch, exit_worker
from .preemption import HANDLED_SIGNALS


def make_workers_signal_safe(loader: DataLoader) -> DataLoader:
    """Makes the workers of a loader (or of the loader that accelerate wraps) ignore stop signals, and end if they
    cannot pass a batch.

    Persistent workers are seeded once, by a generator of the loader: the random numbers of the training then do not
    depend on when the workers started, so that a resumed run equals an uninterrupted one.
    """
    inner: DataLoader = getattr(loader, "base_dataloader", loader)
    if inner.persistent_workers and inner.generator is None:
        inner.generator = torch.Generator().manual_seed(torch.initial_seed())
    if inner.num_workers and hasattr(signal, "sigwaitinfo") and not isinstance(inner.worker_init_fn, _SignalSafeInit):
        inner.worker_init_fn = _SignalSafeInit(inner.worker_init_fn)
        if inner.multiprocessing_context is None and multiprocessing.get_start_method() == "fork":
            inner.multiprocessing_context = _signal_safe_fork_context()
    return loader


def _signal_safe_fork_context() -> BaseContext:
    from multiprocessing.context import ForkContext, ForkProcess  # not available on Windows

    class SignalSafeProcess(ForkProcess):
        def start(self) -> None:
            """Blocks the signals until the worker has set its own signal mask."""
            previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_SIGNALS)
            try:
                super().start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)

    class SignalSafeForkContext(ForkContext):
        Process = SignalSafeProcess

    return SignalSafeForkContext()


@dataclass
class _SignalSafeInit:
    """Worker initializer: calls the original one, and ignores stop signals except those that the parent process sends,
    which end the worker."""

    worker_init_fn: Callable[[int], None] | None

    def __call__(self, worker: int) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_SIGNALS)
        exit_on_lost_batch()
        parent = multiprocessing.parent_process()  # `getppid` may be a fork server
        threading.Thread(target=_exit_with_parent, args=(parent.pid if parent else os.getppid(),), daemon=True).start()
        if self.worker_init_fn is not None:
            self.worker_init_fn(worker)


def _exit_with_parent(parent_pid: int) -> None:
    """Waits for a stop signal from the parent process, then ends the worker."""
    while signal.sigwaitinfo(HANDLED_SIGNALS).si_pid != parent_pid:
        pass
    exit_worker()
