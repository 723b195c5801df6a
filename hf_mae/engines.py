"""What the engines under `accelerate launch` (DDP, FSDP2, DeepSpeed ZeRO) need beyond the Trainer's own handling."""

import json
import logging
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from accelerate import DistributedType, PartialState
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from transformers.integrations import deepspeed

from .errors import UsageError
from .optim import plain_name

logger = logging.getLogger(__name__)

LAUNCH_FILE = "launch.json"


def use_fsdp_where_asked(state: PartialState) -> None:
    """Lets FSDP be used on CPUs too, where accelerate takes DDP instead, without a word.

    accelerate looks for FSDP only among several devices of an accelerator; of those, the type for GPUs is enough.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return
    # FSDP2 also wraps the patch embeddings, whose output is a view; nothing here changes it in place.
    warnings.filterwarnings("ignore", r"FSDP2-wrapped module .* returned a view tensor")
    if state.distributed_type == DistributedType.MULTI_CPU:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


@contextmanager
def whole_weights() -> Iterator[None]:
    """Lets `from_pretrained` load whole weights under ZeRO-3 too, where transformers would share them out at once.

    DeepSpeed shares them out when the model is prepared; until then they are read, converted and compared.
    """
    held = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed._hf_deepspeed_config_weak_ref = None
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = held


@dataclass(frozen=True)
class Launch:
    """How a run was launched; kept in every checkpoint."""

    engine: str  # accelerate's name of it
    processes: int
    effective_batch: int


def write_launch(checkpoint: Path, launch: Launch) -> None:
    (checkpoint / LAUNCH_FILE).write_text(json.dumps(asdict(launch)), encoding="utf-8")


def check_resumable(checkpoint: Path, now: Launch) -> None:
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
    if before.engine != now.engine and not (before.engine in whole and now.engine in whole):
        raise UsageError(
            f"{checkpoint} was saved by {again}, and this is {now.engine}: resume it with the same accelerate config, "
            f"or begin a new run from its weights (--model_name_or_path {checkpoint})."
        )
    if before.engine == DistributedType.DEEPSPEED.value and before.processes != now.processes:
        raise UsageError(
            f"{checkpoint} was saved by {again}, each with its part of the optimizer, and this run has "
            f"{now.processes}: DeepSpeed resumes on the same number of processes only."
        )
    if before.processes != now.processes:
        logger.warning("%s was saved by %s; going on with %d.", checkpoint, again, now.processes)
    if before.effective_batch != now.effective_batch:
        logger.warning(
            "The effective batch was %d and is %d now: pass --gradient_accumulation_steps or "
            "--effective_batch_size to keep it, or the updates are others than they would have been.",
            before.effective_batch,
            now.effective_batch,
        )


def optimizer_settings(model: nn.Module, optimizer) -> dict[str, dict[str, float]]:
    """What the prepared optimizer has for each parameter, by its name in the unwrapped model.

    Args:
        model: the model in training; under DeepSpeed and FSDP2 its parameters are those that the engine holds.
        optimizer: as the Trainer has it after `accelerator.prepare`.

    Returns:
        `lr`, `initial_lr` (where a scheduler has set it) and `weight_decay` for each parameter that is trained.
    """
    names = {id(parameter): plain_name(name) for name, parameter in model.named_parameters()}
    while isinstance(optimizer, AcceleratedOptimizer):
        optimizer = optimizer.optimizer
    if hasattr(optimizer, "bit16_groups"):  # ZeRO-1 and 2: the optimizer itself holds flat partitions
        groups = list(zip(optimizer.bit16_groups, optimizer.optimizer.param_groups))
    elif hasattr(optimizer, "sub_group_to_group_id"):  # ZeRO-3
        owners = optimizer.sub_group_to_group_id
        groups = [(part, optimizer.optimizer.param_groups[owners[i]]) for i, part in enumerate(optimizer.fp16_groups)]
    else:
        groups = [(group["params"], group) for group in optimizer.param_groups]
    kept = ("lr", "initial_lr", "weight_decay")
    return {
        names.get(id(parameter), "a parameter that is not of the model"): {
            key: float(group[key]) for key in kept if key in group
        }
        for parameters, group in groups
        for parameter in parameters
    }


def differing_settings(
    asked: dict[str, dict[str, float]], found: dict[str, dict[str, float]], factor: float
) -> list[str]:
    """Where the optimizer differs from what was asked for, a phrase each.

    Args:
        asked: `lr` (before the schedule) and `weight_decay` by parameter.
        found: of `optimizer_settings`.
        factor: of the schedule at this update.
    """
    phrases = [f"{name} is not in the optimizer" for name in asked if name not in found]
    phrases += [f"{name} is in the optimizer, but is not trained" for name in found if name not in asked]
    for name in asked.keys() & found.keys():
        expected = {
            "lr": asked[name]["lr"] * factor,
            "initial_lr": asked[name]["lr"],
            "weight_decay": asked[name]["weight_decay"],
        }
        phrases += [
            f"{name} has {key} {value:g} in place of {expected[key]:g}"
            for key, value in found[name].items()
            if not math.isclose(value, expected[key], rel_tol=1e-6, abs_tol=1e-15)
        ]
    return sorted(phrases)


def learning_rate_table(asked: dict[str, dict[str, float]]) -> str:
    """Learning rate (before the schedule) and weight decay of every parameter."""
    width = max(map(len, asked))
    lines = [f"{'parameter':<{width}}  learning rate  weight decay"]
    return "\n".join(
        lines + [f"{name:<{width}}  {row['lr']:13.6g}  {row['weight_decay']:12g}" for name, row in asked.items()]
    )
