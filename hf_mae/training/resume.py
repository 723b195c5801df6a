"""Resuming: find the last complete checkpoint, and check that a run can resume from it."""

import json
import logging
import math
import re
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import DistributedType
from safetensors import SafetensorError, safe_open

from ..errors import UsageError, warn
from ..files.atomic import write_json
from .messages import TrainingMessage

logger = logging.getLogger(__name__)

LAUNCH_FILE = "launch.json"


@dataclass(frozen=True)
class Launch:
    """How a run was launched. Every checkpoint has a copy."""

    engine: str  # name in accelerate
    processes: int
    effective_batch: int
    seconds: float = 0.0  # training time, including that of the processes before
    resumes: int = 0  # how often the training was resumed
    images_seen: int | None = None  # in all epochs; None: data of unknown length
    images_per_epoch: int | None = None


def validate_checkpoint(checkpoint: Path) -> None:
    """Checks that a checkpoint is complete.

    The Trainer writes its state last. Headers and file sizes reveal the empty and truncated files that a crash of the
    machine leaves.

    Raises:
        UsageError: If the checkpoint is incomplete or damaged.
    """
    state, launch = checkpoint / "trainer_state.json", checkpoint / LAUNCH_FILE
    if not checkpoint.is_dir():
        raise UsageError(TrainingMessage.NOT_A_CHECKPOINT, path=checkpoint)
    if not state.is_file():
        raise UsageError(TrainingMessage.CHECKPOINT_INCOMPLETE, path=checkpoint)
    try:
        step = json.loads(state.read_text(encoding="utf-8"))["global_step"]
        if launch.is_file():
            Launch(**json.loads(launch.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(TrainingMessage.CHECKPOINT_STATE_UNREADABLE, path=checkpoint) from None
    match = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    if match and step != int(match.group(1)):
        raise UsageError(TrainingMessage.CHECKPOINT_STATE_OF_OTHER_STEP, path=checkpoint, step=step)
    for path in sorted(checkpoint.iterdir()):
        if _is_truncated(path):
            raise UsageError(TrainingMessage.CHECKPOINT_FILE_TRUNCATED, path=checkpoint, file=path.name)


def _is_truncated(path: Path) -> bool:
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt"):
                return False
        except SafetensorError:
            return True
    return path.suffix in (".pt", ".pth", ".bin") and not zipfile.is_zipfile(path)


def find_last_checkpoint(folder: Path) -> Path | None:
    """Finds the newest complete `checkpoint-N`; warns about each damaged one that it skips."""
    if not folder.is_dir():
        return None
    checkpoints = [path for path in folder.iterdir() if path.is_dir() and re.fullmatch(r"checkpoint-\d+", path.name)]
    for path in sorted(checkpoints, key=lambda path: int(path.name.split("-")[1]), reverse=True):
        try:
            validate_checkpoint(path)
        except UsageError as defect:
            warn(logger, TrainingMessage.CHECKPOINT_SKIPPED, defect=defect)
        else:
            return path
    return None


def require_optimizer_state(checkpoint: Path) -> None:
    """Raises UsageError if a checkpoint has no optimizer state (`--save_only_model`)."""
    patterns = ("optimizer.*", "optimizer_*", "optimizer*.safetensors", "pytorch_model_fsdp_*", "global_step*")
    if not any(any(checkpoint.glob(pattern)) for pattern in patterns):
        raise UsageError(TrainingMessage.OPTIMIZER_STATE_MISSING, path=checkpoint)


def check_training_length(checkpoint: Path, epochs: float, max_steps: int) -> None:
    """Checks that the checkpoint is not beyond the requested end of training; warns if the end was moved.

    Args:
        epochs, max_steps: of the resumed run; `max_steps` overrides `epochs` if it is above 0.
    """
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    done, saved = float(state.get("epoch") or 0), float(state.get("num_train_epochs") or 0)
    if max_steps > 0:
        step = int(state.get("global_step") or 0)
        if step > max_steps:
            raise UsageError(
                TrainingMessage.CHECKPOINT_BEYOND_MAX_STEPS, path=checkpoint, step=step, max_steps=max_steps
            )
        return
    if done > epochs or saved > math.ceil(epochs):
        raise UsageError(
            TrainingMessage.CHECKPOINT_BEYOND_EPOCHS, path=checkpoint, saved=saved, done=done, epochs=epochs
        )
    if saved and saved < math.ceil(epochs):
        warn(logger, TrainingMessage.SCHEDULE_EXTENDED, saved=saved, epochs=epochs)


def check_model_matches_checkpoint(checkpoint: str, config: Any) -> None:
    """Checks that a checkpoint to resume from has the classes and the architecture of the model.

    Args:
        config: configuration of the model to train.
    """
    from ..conversion.stock_models import read_config

    path = Path(checkpoint) / "config.json"
    if not path.is_file():
        return
    saved_config = read_config(checkpoint)
    if saved_config.id2label != config.id2label:
        raise UsageError(
            TrainingMessage.CHECKPOINT_CLASSES_DIFFER,
            path=checkpoint,
            saved=saved_config.id2label.values(),
            found=config.id2label.values(),
        )
    for name in ("model_type", "architecture", "image_size", "patch_size", "hidden_size", "num_hidden_layers"):
        saved, found = getattr(saved_config, name, None), getattr(config, name, None)
        if saved != found:
            raise UsageError(
                TrainingMessage.CHECKPOINT_MODEL_DIFFERS, path=checkpoint, name=name, saved=saved, found=found
            )


def write_launch(checkpoint: Path, launch: Launch) -> None:
    """Writes into a checkpoint how its run was launched."""
    write_json(checkpoint / LAUNCH_FILE, asdict(launch))


@dataclass(frozen=True)
class Position:
    """Where a training resumes, in updates and batches of the present launch.

    Args:
        epochs: completed epochs.
        images: images of the current epoch that were trained.
        update: number of updates of this launch up to this image.
        batches: forward passes of this launch up to this image; None: the image is within an update.
    """

    epochs: int
    images: int
    update: int
    batches: int | None


def find_position(
    images_seen: int, images_per_epoch: int, images_per_step: int, accumulation_steps: int, drop_last: bool
) -> Position:
    """Finds the position after a number of images.

    Args:
        images_per_step: images of a forward pass of all processes.
        accumulation_steps: forward passes per update.
        drop_last: whether an epoch drops the last incomplete batch.
    """

    def count_updates(images: int) -> int:
        steps = images // images_per_step if drop_last else math.ceil(images / images_per_step)
        return math.ceil(steps / accumulation_steps)

    epochs, images = divmod(images_seen, images_per_epoch)
    if images and not count_updates(images_per_epoch - images):
        epochs, images = epochs + 1, 0  # the rest of the epoch is dropped
    per_epoch = max(1, count_updates(images_per_epoch))
    update = (epochs + 1) * per_epoch - count_updates(images_per_epoch - images) if images else epochs * per_epoch
    is_boundary = images % (images_per_step * accumulation_steps) == 0
    return Position(epochs, images, update, images // images_per_step if is_boundary else None)


def check_resumable(checkpoint: Path, launch: Launch) -> Launch | None:
    """Checks that the engine can resume from the checkpoint; warns about changes of the launch. Returns the launch that
    is saved in the checkpoint, or None.

    DDP, single processes and FSDP2 (full state dict) save complete optimizer states, which any number of processes can
    load. DeepSpeed saves one shard per process.
    """
    path = checkpoint / LAUNCH_FILE
    if not path.is_file():
        return None
    saved = Launch(**json.loads(path.read_text(encoding="utf-8")))
    unsharded = ("NO", "MULTI_CPU", "MULTI_GPU")
    if saved.engine != launch.engine and not (saved.engine in unsharded and launch.engine in unsharded):
        raise UsageError(
            TrainingMessage.CHECKPOINT_ENGINE_DIFFERS,
            path=checkpoint,
            processes=saved.processes,
            saved=saved.engine,
            engine=launch.engine,
        )
    if saved.engine == DistributedType.DEEPSPEED.value and saved.processes != launch.processes:
        raise UsageError(
            TrainingMessage.CHECKPOINT_SHARDS_DIFFER,
            path=checkpoint,
            saved=saved.processes,
            processes=launch.processes,
        )
    if saved.processes != launch.processes:
        warn(
            logger,
            TrainingMessage.PROCESSES_CHANGED,
            path=checkpoint,
            saved=saved.processes,
            engine=saved.engine,
            processes=launch.processes,
        )
    if saved.effective_batch != launch.effective_batch:
        if saved.images_seen is None:
            raise UsageError(
                TrainingMessage.BATCH_OF_STREAM_CHANGED,
                path=checkpoint,
                saved=saved.effective_batch,
                batch_size=launch.effective_batch,
            )
        warn(
            logger,
            TrainingMessage.EFFECTIVE_BATCH_CHANGED,
            saved=saved.effective_batch,
            batch_size=launch.effective_batch,
        )
    return saved
