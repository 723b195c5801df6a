"""Stopping at a signal: all processes finish the same update, save a checkpoint, and leave.

SLURM sends SIGTERM before it preempts a job or ends it for its time limit. The signal may reach the processes in
different updates, or only some of them, so they agree on when to stop.
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

from ..errors import STOP_SIGNALS, Interrupted, UsageError

logger = logging.getLogger(__name__)
STOPPED_FILE = "stopped_by_signal"  # in the output folder: the run was stopped, and is to be resumed
HANDLED_SIGNALS = (*STOP_SIGNALS, signal.SIGINT)  # SIGINT: Ctrl-C

NOT_TRAINING_HINT = (
    " while it was not training: nothing was saved anew; the same command begins, or goes on with "
    "--resume_from_checkpoint last"
)


class CheckpointedAndStopped(UsageError):
    """The run was told to stop, and has saved what it had."""

    status = Interrupted.status


class StopOnSignal(TrainerCallback):
    """Asks the Trainer to save and stop at the end of an update, once any process was told to.

    The processes' flags are summed up in the background, on the CPU, and the sum of one update is read in the next, so
    that no update waits for it, nor for its GPU. (transformers' own `enable_jit_checkpoint` lets each process stop on
    its own, which leaves the others waiting.)
    """

    def __init__(self) -> None:
        self.received_signal: int | None = None  # the signal
        self.is_stopping = False
        self._previous_handlers: dict[signal.Signals, Any] = {}
        self._group: distributed.ProcessGroup | None = None
        self._pending_reduce: tuple[torch.Tensor, distributed.Work] | None = None

    def _handle_signal(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT and self.received_signal is not None:  # a second Ctrl-C: at once
            raise KeyboardInterrupt
        self.received_signal = number

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Listens to the signal from now on."""
        self.received_signal, self.is_stopping, self._pending_reduce = None, False, None
        if args.world_size > 1:
            group: Any = distributed.new_group(backend="gloo")
            self._group = group
        _set_parent_death_signal()
        if threading.current_thread() is threading.main_thread():
            self._previous_handlers = {number: signal.signal(number, self._handle_signal) for number in HANDLED_SIGNALS}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Saves and stops, once any process was told to; an evaluation that is due is still made."""
        if self._is_stop_requested_on_any_rank(args) and not control.should_training_stop:
            self.is_stopping = control.should_training_stop = True
            control.should_save = not _is_end_of_epoch(state)  # at the end of an epoch its evaluation comes first
            if args.process_index == 0:
                by = signal.Signals(self.received_signal).name if self.received_signal else "another process"
                logger.warning("Told to stop (%s): saving a checkpoint at update %d.", by, state.global_step)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The Trainer takes a stop for the end of an epoch, which is evaluated, and may be kept as the best one: one
        that was broken off is not."""
        if self.is_stopping and _is_end_of_epoch(state):
            control.should_save = True
        elif self.is_stopping:
            control.should_evaluate = control.should_save = False

    def _is_stop_requested_on_any_rank(self, args: Any) -> bool:
        if args.world_size == 1:
            return self.received_signal is not None
        told = False
        if self._pending_reduce is not None:
            flags, work = self._pending_reduce
            work.wait()
            told = flags.item() > 0
        flags = torch.tensor(float(self.received_signal is not None))
        self._pending_reduce = flags, distributed.all_reduce(flags, group=self._group, async_op=True)
        return told

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Listens no more."""
        if self._pending_reduce is not None:
            self._pending_reduce[1].wait()
            self._pending_reduce = None
        if self._group is not None:
            distributed.destroy_process_group(self._group)
            self._group = None
        self.restore_handlers()

    def restore_handlers(self) -> None:
        """The signals are again what they were; also after a training that failed."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers = {}

    def raise_if_stopped(self, args: Any, step: int) -> None:
        """Marks the output folder and ends the run, if it was stopped.

        Raises:
            StoppedBySignal: always then.
        """
        if not self.is_stopping:
            return
        if args.process_index == 0:
            (Path(args.output_dir) / STOPPED_FILE).touch()
        raise CheckpointedAndStopped(
            f"Stopped by a signal at update {step}, after saving a checkpoint: go on with the same command and "
            "--resume_from_checkpoint last."
        )


def _set_parent_death_signal() -> None:
    """A process of torch's launcher is told to stop when the launcher is gone, so that it saves, and does not go on
    unseen. (A SIGUSR1 ends the launcher at once, and never comes to its processes.)"""
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        pr_set_pdeathsig = 1  # of linux/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _is_end_of_epoch(state: Any) -> bool:
    return abs(state.epoch - round(state.epoch)) < 1e-9


def remove_stopped_file(args: Any) -> None:
    """A run that begins, or goes on, is no stopped one."""
    if args.process_index == 0:
        (Path(args.output_dir) / STOPPED_FILE).unlink(missing_ok=True)
