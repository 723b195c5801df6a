"""The checkpoints of a run: which are whole, how they were launched, and whether this run may go on from one."""

import json
import logging
import math
import re
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import DistributedType

from ..errors import UsageError
from ..files.atomic import write_json

logger = logging.getLogger(__name__)


LAUNCH_FILE = "launch.json"


@dataclass(frozen=True)
class Launch:
    """How a run was launched; kept in every checkpoint."""

    engine: str  # accelerate's name of it
    processes: int
    effective_batch: int


def find_checkpoint_defect(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be gone on from; None: it is whole.

    The Trainer writes its state last. Files are looked at as far as their heads and lengths tell: a machine that goes
    down leaves empty and short ones.
    """
    state, launch = checkpoint / "trainer_state.json", checkpoint / LAUNCH_FILE
    if not checkpoint.is_dir():
        return "is no checkpoint"
    if not state.is_file():
        return "was not written to its end (the run was killed while saving)"
    try:
        update = json.loads(state.read_text(encoding="utf-8"))["global_step"]
        if launch.is_file():
            Launch(**json.loads(launch.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return "is damaged (trainer_state.json or launch.json cannot be read)"
    named = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    if named and update != int(named.group(1)):
        return f"is damaged (its trainer_state.json is of update {update})"
    for path in sorted(checkpoint.iterdir()):
        if path.suffix == ".safetensors" and not _is_complete_safetensors(path):
            return f"is damaged ({path.name} is cut off)"
        if path.suffix in (".pt", ".pth", ".bin") and not zipfile.is_zipfile(path):
            return f"is damaged ({path.name} is cut off)"
    return None


def _is_complete_safetensors(path: Path) -> bool:
    """Whether a file is as long as its head says."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                return False
            head = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in head.items() if name != "__metadata__"]
        return path.stat().st_size == 8 + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return False


def find_last_checkpoint(folder: Path) -> Path | None:
    """The newest complete `checkpoint-N`; a half-written one is passed over, and said so."""
    if not folder.is_dir():
        return None
    found = [path for path in folder.iterdir() if path.is_dir() and re.fullmatch(r"checkpoint-\d+", path.name)]
    for path in sorted(found, key=lambda path: int(path.name.split("-")[1]), reverse=True):
        fault = find_checkpoint_defect(path)
        if fault is None:
            return path
        logger.warning("%s %s: it is passed over.", path, fault)
    return None


def require_optimizer_state(checkpoint: Path) -> None:
    """Raises UsageError for a checkpoint of `--save_only_model`: a run that went on from it would be another one."""
    kept = (
        "optimizer.pt",
        "optimizer.bin",
        "optimizer_*",
        "pytorch_model_fsdp_*",
        "global_step*",
        "optimizer*.safetensors",
    )
    if not any(any(checkpoint.glob(pattern)) for pattern in kept):
        raise UsageError(
            f"{checkpoint} was saved without its optimizer (--save_only_model), so no run can go on from it: begin a "
            f"new one from its weights (--model_name_or_path {checkpoint}, another --output_dir)."
        )


def check_training_length(checkpoint: Path, epochs: float, max_steps: int) -> None:
    """Refuses to go on with a run that is past the end that is asked for, and says so where the end has moved.

    Args:
        epochs, max_steps: of the run that goes on; `max_steps` counts where it is above 0.
    """
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    done, then = float(state.get("epoch") or 0), float(state.get("num_train_epochs") or 0)
    if max_steps > 0:
        if int(state.get("global_step") or 0) > max_steps:
            raise UsageError(
                f"{checkpoint} has made {state['global_step']} updates, more than --max_steps {max_steps}: a run goes "
                "on to the end that it began with, or to a later one."
            )
        return
    if done > epochs or then > math.ceil(epochs):
        raise UsageError(
            f"{checkpoint} is of a run of {then:g} epochs ({done:g} are done), more than --num_train_epochs "
            f"{epochs:g}: a run goes on to the end that it began with, or to a later one."
        )
    if then and then < math.ceil(epochs):
        logger.warning(
            "The run was to end after %g epochs and ends after %g now: from here on the learning rate is that of the "
            "longer run.",
            then,
            epochs,
        )


def check_model_matches_checkpoint(checkpoint: str, config: Any) -> None:
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
    for name in ("model_type", "architecture", "image_size", "patch_size", "hidden_size", "num_hidden_layers"):
        then, now = getattr(before, name, None), getattr(config, name, None)
        if then != now:
            raise UsageError(f"{checkpoint} has {name} {then}, this run has {now}: a run goes on as it began.")


def write_launch(checkpoint: Path, launch: Launch) -> None:
    """Says in a checkpoint how its run was launched."""
    write_json(checkpoint / LAUNCH_FILE, asdict(launch))


def check_resumable(checkpoint: Path, launch: Launch) -> None:
    """Refuses to resume where the engine cannot, and says what changes where it can.

    DDP and single processes keep whole optimizer states, which any number of processes reads, and so does FSDP2 with
    its full state dict; DeepSpeed keeps a part for each process.
    """
    path = checkpoint / LAUNCH_FILE
    if not path.is_file():
        return
    before = Launch(**json.loads(path.read_text(encoding="utf-8")))
    again = f"{before.processes} process{'es' if before.processes > 1 else ''} under {before.engine}"
    whole = ("NO", "MULTI_CPU", "MULTI_GPU")
    if before.engine != launch.engine and not (before.engine in whole and launch.engine in whole):
        raise UsageError(
            f"{checkpoint} was saved by {again}, and this is {launch.engine}: resume it with the same accelerate config, "
            f"or begin a new run from its weights (--model_name_or_path {checkpoint})."
        )
    if before.engine == DistributedType.DEEPSPEED.value and before.processes != launch.processes:
        raise UsageError(
            f"{checkpoint} was saved by {again}, each with its part of the optimizer, and this run has "
            f"{launch.processes}: DeepSpeed resumes on the same number of processes only."
        )
    if before.processes != launch.processes:
        logger.warning("%s was saved by %s; going on with %d.", checkpoint, again, launch.processes)
    if before.effective_batch != launch.effective_batch:
        logger.warning(
            "The effective batch was %d and is %d now: pass --gradient_accumulation_steps or "
            "--effective_batch_size to keep it, or the updates are others than they would have been.",
            before.effective_batch,
            launch.effective_batch,
        )
