"""Resuming: find the last complete checkpoint, and check that a run can resume from it."""

import json
import logging
import math
import re
import sys
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import DistributedType
from safetensors import SafetensorError, safe_open
from transformers import TrainerState

from ..conversion.messages import ConversionMessage
from ..errors import UsageError, warn
from ..files.atomic import write_json
from .checkpoint_files import check_checkpoint_files
from .messages import TrainingMessage

logger = logging.getLogger(__name__)

LAUNCH_FILE, STATE_FILE = "launch.json", "trainer_state.json"
STATES_LIKE_PARAMETERS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "sum")
# Defects that are not those of an interrupted run: an older checkpoint is not used silently.
UNSAFE = (
    TrainingMessage.CHECKPOINT_FILE_NOT_REGULAR,
    TrainingMessage.CHECKPOINT_FILE_TOO_LARGE,
    TrainingMessage.CHECKPOINT_IMPORTS,
    ConversionMessage.FILE_COMPRESSED,
    ConversionMessage.PICKLE_TOO_LARGE,
)


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
    state, launch = checkpoint / STATE_FILE, checkpoint / LAUNCH_FILE
    if not checkpoint.is_dir():
        raise UsageError(TrainingMessage.NOT_A_CHECKPOINT, path=checkpoint)
    if not state.is_file():
        raise UsageError(TrainingMessage.CHECKPOINT_INCOMPLETE, path=checkpoint)
    check_checkpoint_files(checkpoint)
    step = read_trainer_state(checkpoint)["global_step"]
    if launch.is_file():
        _read_launch(checkpoint)
    match = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    if match and step != int(match.group(1)):
        raise UsageError(TrainingMessage.CHECKPOINT_STATE_OF_OTHER_STEP, path=checkpoint, step=step)
    for path in sorted(checkpoint.iterdir()):
        if _is_truncated(path):
            raise UsageError(TrainingMessage.CHECKPOINT_FILE_TRUNCATED, path=checkpoint, file=path.name)


def read_trainer_state(checkpoint: Path) -> dict[str, Any]:
    """Reads the Trainer's state of a checkpoint.

    Raises:
        UsageError: If it cannot be read, or a number in it is impossible.
    """
    try:
        state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
        TrainerState(**state)  # of a known version
        values = {name: state[name] for name in ("global_step",)} | {
            name: state.get(name) or 0 for name in ("epoch", "max_steps", "num_train_epochs")
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UsageError(TrainingMessage.CHECKPOINT_STATE_UNREADABLE, path=checkpoint) from None
    _check_numbers(values, {"global_step", "max_steps"}, checkpoint, STATE_FILE)
    for name, end in (("global_step", "max_steps"), ("epoch", "num_train_epochs")):
        if 0 < values[end] < math.floor(values[name]):
            value = f"{values[name]:g}, beyond its {end} {values[end]:g}"
            raise _invalid_value(checkpoint, STATE_FILE, name, value)
    return dict(state)


def _check_numbers(values: dict[str, Any], integers: set[str], checkpoint: Path, file: str) -> None:
    """Checks that values are finite numbers from 0."""
    for name, value in values.items():
        kinds = int if name in integers else (int, float)
        is_number = isinstance(value, kinds) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= sys.maxsize:
            raise _invalid_value(checkpoint, file, name, value)


def _invalid_value(checkpoint: Path, file: str, name: str, value: Any) -> UsageError:
    text = str(value)[:100]
    return UsageError(TrainingMessage.CHECKPOINT_VALUE_INVALID, path=checkpoint, file=file, name=name, value=text)


def _read_launch(checkpoint: Path) -> Launch:
    try:
        launch = Launch(**json.loads((checkpoint / LAUNCH_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        raise UsageError(TrainingMessage.CHECKPOINT_STATE_UNREADABLE, path=checkpoint) from None
    values = {name: value for name, value in asdict(launch).items() if name != "engine" and value is not None}
    _check_numbers(values, {*values} - {"seconds"}, checkpoint, LAUNCH_FILE)
    if not launch.processes or not launch.effective_batch or launch.images_per_epoch == 0:
        raise _invalid_value(checkpoint, LAUNCH_FILE, "processes, effective_batch or images_per_epoch", 0)
    return launch


def check_optimizer_state(checkpoint: Path, optimizer: Any, scheduler: Any) -> None:
    """Checks, after a checkpoint was loaded, that its optimizer state and schedule fit the parameters.

    Raises:
        UsageError: If a state has another shape than its parameter, or a rate is not a finite number.
    """
    for group in optimizer.param_groups:
        rates = {name: group[name] for name in ("lr", "initial_lr", "weight_decay", "eps", "momentum") if name in group}
        rates |= {f"betas[{index}]": beta for index, beta in enumerate(group.get("betas") or ())}
        numbers = {name: rate for name, rate in rates.items() if rate is not None and not hasattr(rate, "shape")}
        _check_numbers(numbers, set(), checkpoint, "the optimizer state")
        for index, parameter in enumerate(group["params"]):
            name = (group.get("param_names") or {index: f"parameter {index}"})[index]
            for key, value in (optimizer.state.get(parameter) or {}).items():
                if key in STATES_LIKE_PARAMETERS and value.shape != parameter.shape:
                    raise UsageError(
                        TrainingMessage.OPTIMIZER_STATE_SHAPE,
                        path=checkpoint,
                        name=f"{name} ({key})",
                        saved=tuple(value.shape),
                        found=tuple(parameter.shape),
                    )
    if (update := getattr(scheduler, "last_epoch", None)) is not None:
        _check_numbers({"last_epoch": update}, {"last_epoch"}, checkpoint, "scheduler.pt")


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
            if defect.code in UNSAFE:
                raise
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
    state = read_trainer_state(checkpoint)
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
    saved = _read_launch(checkpoint)
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
