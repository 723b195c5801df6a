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

from ..errors import STOP_SIGNALS, Stopped, UsageError

logger = logging.getLogger(__name__)
MARK = "stopped_by_signal"  # in the output folder: the run was stopped, and is to be resumed
SIGNALS = (*STOP_SIGNALS, signal.SIGINT)  # SIGINT: Ctrl-C

BEFORE_TRAINING = (
    " while it was not training: nothing was saved anew; the same command begins, or goes on with "
    "--resume_from_checkpoint last"
)


class StoppedBySignal(UsageError):
    """The run was told to stop, and has saved what it had."""

    status = Stopped.status


class StopAtSignal(TrainerCallback):
    """Asks the Trainer to save and stop at the end of an update, once any process was told to.

    The processes' flags are summed up in the background, on the CPU, and the sum of one update is read in the next, so
    that no update waits for it, nor for its GPU. (transformers' own `enable_jit_checkpoint` lets each process stop on
    its own, which leaves the others waiting.)
    """

    def __init__(self) -> None:
        self.told: int | None = None  # the signal
        self.stopped = False
        self._before: dict[signal.Signals, Any] = {}
        self._group: distributed.ProcessGroup | None = None
        self._sum: tuple[torch.Tensor, distributed.Work] | None = None

    def _tell(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT and self.told is not None:  # a second Ctrl-C: at once
            raise KeyboardInterrupt
        self.told = number

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Listens to the signal from now on."""
        self.told, self.stopped, self._sum = None, False, None
        if args.world_size > 1:
            group: Any = distributed.new_group(backend="gloo")
            self._group = group
        _follow_the_launcher()
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._tell) for number in SIGNALS}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Saves and stops, once any process was told to; an evaluation that is due is still made."""
        if self._anyone_was_told(args) and not control.should_training_stop:
            self.stopped = control.should_training_stop = True
            control.should_save = not _epoch_is_whole(state)  # at the end of an epoch its evaluation comes first
            if args.process_index == 0:
                by = signal.Signals(self.told).name if self.told else "another process"
                logger.warning("Told to stop (%s): saving a checkpoint at update %d.", by, state.global_step)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The Trainer takes a stop for the end of an epoch, which is evaluated, and may be kept as the best one: one
        that was broken off is not."""
        if self.stopped and _epoch_is_whole(state):
            control.should_save = True
        elif self.stopped:
            control.should_evaluate = control.should_save = False

    def _anyone_was_told(self, args: Any) -> bool:
        if args.world_size == 1:
            return self.told is not None
        told = False
        if self._sum is not None:
            flags, work = self._sum
            work.wait()
            told = flags.item() > 0
        flags = torch.tensor(float(self.told is not None))
        self._sum = flags, distributed.all_reduce(flags, group=self._group, async_op=True)
        return told

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Listens no more."""
        if self._sum is not None:
            self._sum[1].wait()
            self._sum = None
        if self._group is not None:
            distributed.destroy_process_group(self._group)
            self._group = None
        self.listen_no_more()

    def listen_no_more(self) -> None:
        """The signals are again what they were; also after a training that failed."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def leave(self, args: Any, step: int) -> None:
        """Marks the output folder and ends the run, if it was stopped.

        Raises:
            StoppedBySignal: always then.
        """
        if not self.stopped:
            return
        if args.process_index == 0:
            (Path(args.output_dir) / MARK).touch()
        raise StoppedBySignal(
            f"Stopped by a signal at update {step}, after saving a checkpoint: go on with the same command and "
            "--resume_from_checkpoint last."
        )


def _follow_the_launcher() -> None:
    """A process of torch's launcher is told to stop when the launcher is gone, so that it saves, and does not go on
    unseen. (A SIGUSR1 ends the launcher at once, and never comes to its processes.)"""
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        pr_set_pdeathsig = 1  # of linux/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _epoch_is_whole(state: Any) -> bool:
    return abs(state.epoch - round(state.epoch)) < 1e-9


def clear_mark(args: Any) -> None:
    """A run that begins, or goes on, is no stopped one."""
    if args.process_index == 0:
        (Path(args.output_dir) / MARK).unlink(missing_ok=True)
