"""Checkpoint and stop on a signal: all processes finish the same update, save a checkpoint, and exit.

SLURM sends SIGTERM before it preempts a job or ends it at its time limit. The signal may reach the processes during
different updates, or reach only some of them, so they agree on the update to stop at.
"""

import ctypes
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback

from ..errors import STOP_SIGNALS, Interrupted, UsageError, install_signal_handlers, warn
from .messages import TrainingMessage

logger = logging.getLogger(__name__)
STOPPED_FILE = "stopped_by_signal"  # marks the output folder of a run that a signal stopped
HANDLED_SIGNALS = (*STOP_SIGNALS, signal.SIGINT)  # SIGINT: Ctrl-C


class CheckpointedAndStopped(UsageError):
    """A signal stopped the run, which has saved a checkpoint."""

    status = Interrupted.status


class StopOnSignal(TrainerCallback):
    """Makes the Trainer save and stop at the end of an update after any process received a stop signal.

    The flags of the processes are summed asynchronously on the CPU, and the sum is read one update later, so that no
    update waits for it or for its GPU. (With `enable_jit_checkpoint` of transformers, each process stops on its own,
    which leaves the others waiting.)
    """

    def __init__(self) -> None:
        self.received_signal: int | None = None
        self.is_stopping = False
        self._previous_handlers: dict[signal.Signals, Any] = {}
        self._group: distributed.ProcessGroup | None = None
        self._pending_reduce: tuple[torch.Tensor, distributed.Work] | None = None

    def _handle_signal(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT and self.received_signal is not None:  # second Ctrl-C: stop immediately
            raise KeyboardInterrupt
        self.received_signal = number

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Installs the signal handlers."""
        self.received_signal, self.is_stopping, self._pending_reduce = None, False, None
        if args.world_size > 1:
            group: Any = distributed.new_group(backend="gloo")
            self._group = group
        _set_parent_death_signal()
        if threading.current_thread() is threading.main_thread():
            self._previous_handlers = install_signal_handlers(HANDLED_SIGNALS, self._handle_signal)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Requests a checkpoint and a stop after a stop signal on any process. A due evaluation still runs."""
        if self._is_stop_requested_on_any_rank(args) and not control.should_training_stop:
            self.is_stopping = control.should_training_stop = True
            control.should_save = not _is_end_of_epoch(state)  # after the evaluation at the end of an epoch
            if args.process_index == 0:
                step = state.global_step
                if self.received_signal:
                    name = signal.Signals(self.received_signal).name
                    warn(logger, TrainingMessage.STOP_SIGNAL, signal=name, step=step)
                else:
                    warn(logger, TrainingMessage.STOP_SIGNAL_ON_OTHER_PROCESS, step=step)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Prevents the evaluation of an interrupted epoch, which the Trainer would treat as completed."""
        if self.is_stopping and _is_end_of_epoch(state):
            control.should_save = True
        elif self.is_stopping:
            control.should_evaluate = control.should_save = False

    def _is_stop_requested_on_any_rank(self, args: Any) -> bool:
        if args.world_size == 1:
            return self.received_signal is not None
        stop_requested = False
        if self._pending_reduce is not None:
            flags, work = self._pending_reduce
            work.wait()
            stop_requested = flags.item() > 0
        flags = torch.tensor(float(self.received_signal is not None))
        self._pending_reduce = flags, distributed.all_reduce(flags, group=self._group, async_op=True)
        return stop_requested

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends the pending reduction and restores the signal handlers."""
        if self._pending_reduce is not None:
            self._pending_reduce[1].wait()
            self._pending_reduce = None
        if self._group is not None:
            distributed.destroy_process_group(self._group)
            self._group = None
        self.restore_handlers()

    def restore_handlers(self) -> None:
        """Restores the previous signal handlers, also after a failed training."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers = {}

    def raise_if_stopped(self, args: Any, step: int) -> None:
        """Marks the output folder and ends the run if a signal stopped it.

        Raises:
            CheckpointedAndStopped: If a signal stopped the run.
        """
        if not self.is_stopping:
            return
        if args.process_index == 0:
            (Path(args.output_dir) / STOPPED_FILE).touch()
        raise CheckpointedAndStopped(TrainingMessage.STOPPED_BY_SIGNAL, step=step)


def _set_parent_death_signal() -> None:
    """Makes Linux send SIGTERM to this process when torch's launcher ends, so that it saves a checkpoint and stops.
    (A SIGUSR1 ends the launcher immediately and does not reach its processes.)"""
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        pr_set_pdeathsig = 1  # linux/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _is_end_of_epoch(state: Any) -> bool:
    return abs(state.epoch - round(state.epoch)) < 1e-9


def remove_stopped_file(args: Any) -> None:
    """Removes the mark of a stopped run, when it starts or resumes."""
    if args.process_index == 0:
        (Path(args.output_dir) / STOPPED_FILE).unlink(missing_ok=True)
