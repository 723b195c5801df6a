"""Training from the first update, or from a checkpoint, to the end or to an interruption."""

import re
import time
from typing import Any

from transformers.trainer_utils import TrainOutput

from ..errors import Interrupted, UsageError, first_error_line
from .preemption import StopOnSignal, remove_stopped_file
from .trainer import MaeTrainerBase

# What the backends say when the process at the other end is gone.
CONNECTION_LOST = re.compile(
    r"connection (was )?(closed|reset)|connection refused|broken pipe|timed out|remote process exited|socket|nccl|peer",
    re.IGNORECASE,
)
RESUME_HINT = "Go on with the same command and --resume_from_checkpoint last."


def run_training(trainer: MaeTrainerBase, checkpoint: str | None) -> tuple[TrainOutput, float]:
    """Trains (from a checkpoint, if given) and says how long it took, in seconds; an interruption says how to go on.

    Raises:
        UsageError: another process is gone; StoppedBySignal: it was told to stop; KeyboardInterrupt: at once.
    """
    started = time.time()
    remove_stopped_file(trainer.args)
    stop = StopOnSignal()
    trainer.add_callback(stop)
    try:
        result: Any = trainer.train(resume_from_checkpoint=checkpoint)
    except Interrupted:
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Interrupted at update {trainer.state.global_step}. {RESUME_HINT}") from None
    except UsageError as error:  # of a worker that loads images, it comes with the worker's traceback in front
        raise UsageError(str(error).strip().rpartition(f"{UsageError.__name__}: ")[2]) from None
    except RuntimeError as error:
        if trainer.args.world_size == 1 or not CONNECTION_LOST.search(str(error)):
            raise
        raise UsageError(
            f"Another process of this run is gone, or cannot be reached ({first_error_line(error)}); process "
            f"{trainer.args.process_index} stopped at update {trainer.state.global_step}. {RESUME_HINT}"
        ) from None
    finally:
        stop.restore_handlers()
    stop.raise_if_stopped(trainer.args, trainer.state.global_step)
    return result, time.time() - started
