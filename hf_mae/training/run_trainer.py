"""Runs a trainer to the end or to an interruption, from the start or from a checkpoint."""

import copy
import logging

from transformers.trainer_utils import TrainOutput

from ..compat.torch import get_worker_error_text, is_connection_lost
from ..errors import Interrupted, UsageError, first_error_line, warn
from ..settings.arguments import FinetuningArguments
from .messages import TrainingMessage
from .preemption import StopOnSignal, remove_stopped_file
from .trainer import MaeTrainerBase

logger = logging.getLogger(__name__)

RESUME_HINT = "To resume, repeat the command with --resume_from_checkpoint last."


def disable_evaluation_without_split(args: FinetuningArguments, selection_split: str | None) -> FinetuningArguments:
    """Returns a copy of the arguments, without evaluation during training if no split selects the epoch."""
    args = copy.copy(args)
    if selection_split is None:
        warn(logger, TrainingMessage.NO_VALIDATION_SPLIT)
        args.eval_strategy, args.load_best_model_at_end = type(args.eval_strategy)("no"), False
        args.early_stopping_patience = None
    return args


def run_training(trainer: MaeTrainerBase, checkpoint: str | None) -> TrainOutput:
    """Trains, from a checkpoint if given.

    Raises:
        UsageError: If another process ended.
        CheckpointedAndStopped: If a signal stopped the run.
        KeyboardInterrupt: If Ctrl-C was pressed twice; the message says how to resume.
    """
    remove_stopped_file(trainer.args)
    stop = StopOnSignal()
    trainer.add_callback(stop)
    try:
        result: TrainOutput = trainer.train(resume_from_checkpoint=checkpoint)
    except Interrupted:
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Interrupted at update {trainer.state.global_step}. {RESUME_HINT}") from None
    except UsageError as error:
        raise UsageError(get_worker_error_text(error)) from None
    except RuntimeError as error:
        if trainer.args.world_size == 1 or not is_connection_lost(error):
            raise
        raise UsageError(
            TrainingMessage.PROCESS_LOST,
            error=first_error_line(error),
            rank=trainer.args.process_index,
            step=trainer.state.global_step,
        ) from None
    finally:
        stop.restore_handlers()
    stop.raise_if_stopped(trainer.args, trainer.state.global_step)
    return result
