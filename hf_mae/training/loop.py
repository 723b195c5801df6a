"""Training from the first update, or from a checkpoint, to the end or to an interruption."""

import re
import time
from typing import Any

from transformers.trainer_utils import TrainOutput

from ..errors import Stopped, UsageError, first_line
from .preemption import StopAtSignal, clear_mark
from .trainer import ReferenceTrainer

# What the backends say when the process at the other end is gone.
GONE = re.compile(
    r"connection (was )?(closed|reset)|connection refused|broken pipe|timed out|remote process exited|socket|nccl|peer",
    re.IGNORECASE,
)
AGAIN = "Go on with the same command and --resume_from_checkpoint last."


def train(trainer: ReferenceTrainer, checkpoint: str | None) -> tuple[TrainOutput, float]:
    """Trains (from a checkpoint, if given) and says how long it took, in seconds; an interruption says how to go on.

    Raises:
        UsageError: another process is gone; StoppedBySignal: it was told to stop; KeyboardInterrupt: at once.
    """
    started = time.time()
    clear_mark(trainer.args)
    stop = StopAtSignal()
    trainer.add_callback(stop)
    try:
        result: Any = trainer.train(resume_from_checkpoint=checkpoint)
    except Stopped:
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Interrupted at update {trainer.state.global_step}. {AGAIN}") from None
    except UsageError as error:  # of a worker that loads images, it comes with the worker's traceback in front
        raise UsageError(str(error).strip().rpartition(f"{UsageError.__name__}: ")[2]) from None
    except RuntimeError as error:
        if trainer.args.world_size == 1 or not GONE.search(str(error)):
            raise
        raise UsageError(
            f"Another process of this run is gone, or cannot be reached ({first_line(error)}); process "
            f"{trainer.args.process_index} stopped at update {trainer.state.global_step}. {AGAIN}"
        ) from None
    finally:
        stop.listen_no_more()
    stop.leave(trainer.args, trainer.state.global_step)
    return result, time.time() - started
