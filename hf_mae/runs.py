"""What the training verbs share: logging, the output folder, resuming, versions."""

import logging
import os
import platform
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path

from .errors import UsageError

logger = logging.getLogger(__name__)


def set_up_logging(is_main_process: bool) -> None:
    """Our own log lines on the main process's stderr; of transformers only errors, and no bars for reading a file."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
    logging.getLogger("hf_mae").setLevel(logging.INFO if is_main_process else logging.ERROR)


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end: the Trainer writes its state last."""
    return (checkpoint / "trainer_state.json").is_file()


def last_checkpoint(output_dir: str) -> Path | None:
    """The newest complete `checkpoint-N`; a half-written one is passed over, and said so."""
    folder = Path(output_dir)
    if not folder.is_dir():
        return None
    found = [path for path in folder.iterdir() if path.is_dir() and re.fullmatch(r"checkpoint-\d+", path.name)]
    for path in sorted(found, key=lambda path: int(path.name.split("-")[1]), reverse=True):
        if is_complete(path):
            return path
        logger.warning("%s was not written to its end (the run was killed while saving): it is passed over.", path)
    return None


def settle_resume(args) -> str | None:
    """The checkpoint to resume from, or None for a new run; refuses to write over a run that is there.

    `--resume_from_checkpoint` takes a folder, or `last` for the newest complete checkpoint of the output folder.
    """
    asked = args.resume_from_checkpoint
    if asked in ("last", "auto", "True", "true", True):
        found = last_checkpoint(args.output_dir)
        if found is None:
            logger.info("%s holds no checkpoint to resume from: training starts anew.", args.output_dir)
            return None
        logger.info("Resuming from %s", found)
        return str(found)
    if asked and asked not in ("False", "false"):
        if not is_complete(Path(asked)):
            raise UsageError(f"{asked} is no complete checkpoint: pass a checkpoint-N folder, or `last`.")
        return asked
    folder = Path(args.output_dir)
    if folder.is_file():
        raise UsageError(f"{folder} is a file: --output_dir names a folder.")
    if folder.is_dir() and not args.overwrite_output_dir:
        marks = [*folder.glob("checkpoint-*"), *folder.glob("model.safetensors")]
        if marks:
            raise UsageError(
                f"{folder} holds a run already ({marks[0].name}): pass --resume_from_checkpoint last to go on with it, "
                "--overwrite_output_dir to start anew there, or another --output_dir."
            )
    if args.overwrite_output_dir and args.process_index == 0:
        import shutil

        for old in folder.glob("checkpoint-*"):
            shutil.rmtree(old)
    return None


def refuse_another_model(checkpoint: str, config) -> None:
    """Says so, in a sentence, where a checkpoint to resume from is of another model than this run's.

    Args:
        config: of the model that is to be trained.
    """
    from transformers import AutoConfig

    path = Path(checkpoint) / "config.json"
    if not path.is_file():
        return
    before = AutoConfig.from_pretrained(checkpoint)
    if before.id2label != config.id2label:
        raise UsageError(
            f"{checkpoint} knows the classes {', '.join(before.id2label.values())}, the data has "
            f"{', '.join(config.id2label.values())}: a run goes on with the classes that it began with."
        )
    for name in ("model_type", "image_size", "patch_size", "hidden_size", "num_hidden_layers"):
        then, now = getattr(before, name), getattr(config, name)
        if then != now:
            raise UsageError(f"{checkpoint} has {name} {then}, this run has {now}: a run goes on as it began.")


def versions() -> str:
    names = ("torch", "transformers", "timm", "datasets", "accelerate")
    return ", ".join(f"{name} {version(name)}" for name in names)


def hardware() -> str:
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


# What the backends say when the process at the other end is gone.
GONE = re.compile(
    r"connection (was )?(closed|reset)|connection refused|broken pipe|timed out|remote process exited|socket|nccl|peer",
    re.IGNORECASE,
)


def train(trainer, checkpoint: str | None) -> tuple["TrainOutput", float]:  # noqa: F821
    """Trains (from a checkpoint, if given) and says how long it took, in seconds; an interruption says how to go on."""
    from .preemption import StopAtSignal, clear_mark

    started = time.time()
    clear_mark(trainer.args)
    stop = StopAtSignal()
    trainer.add_callback(stop)
    again = "Go on with the same command and --resume_from_checkpoint last."
    try:
        result = trainer.train(resume_from_checkpoint=checkpoint)
    except KeyboardInterrupt:
        raise UsageError(f"Interrupted at update {trainer.state.global_step}. {again}") from None
    except UsageError as error:  # of a worker that loads images, it comes with the worker's traceback in front
        raise UsageError(str(error).strip().rpartition(f"{UsageError.__name__}: ")[2]) from None
    except RuntimeError as error:
        if trainer.args.world_size == 1 or not GONE.search(str(error)):
            raise
        reason = str(error).strip().split("\n")[0]
        raise UsageError(
            f"Another process of this run is gone, or cannot be reached ({reason}); process "
            f"{trainer.args.process_index} stopped at update {trainer.state.global_step}. {again}"
        ) from None
    stop.leave(trainer.args, trainer.state.global_step)
    return result, time.time() - started
