"""The processes of a launch: the environment variables of accelerate, torchrun and MPI. Does not import torch.

Verified with accelerate 1.10 to 1.15.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..errors import UsageError
from .messages import CompatMessage

PRECISION = "ACCELERATE_MIXED_PRECISION"
ENGINES = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_MEGATRON_LM")
# The names of torch, and those of MPI, from which accelerate derives them.
RANK = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
WORLD_SIZE = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
LOCAL_RANK = ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK")
LOCAL_WORLD_SIZE = ("LOCAL_WORLD_SIZE", "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE")
ADDRESS = (("MASTER_ADDR",), ("MASTER_PORT",))


@dataclass(frozen=True)
class LaunchedProcess:
    """This process among the processes of a launch.

    Args:
        rank, num_processes: in the launch.
        local_rank, local_num_processes: on this machine.
        precision: mixed precision that the launcher requests: `no`, `bf16` or `fp16`.
        uses_fsdp: whether the launcher requests FSDP.
        is_launched: whether a launcher started this process.
    """

    rank: int = 0
    num_processes: int = 1
    local_rank: int = 0
    local_num_processes: int = 1
    precision: str = "no"
    uses_fsdp: bool = False
    is_launched: bool = field(default=False, compare=False)


def read_launch() -> LaunchedProcess:
    """Reads the environment variables of the launcher. Without a launcher, this is the only process.

    Raises:
        UsageError: If variables of another job are set: some of those that launchers set together, or values that they
            do not set.
    """
    precision = os.environ.get(PRECISION, "no").lower() or "no"
    if precision not in ("no", "bf16", "fp16"):
        raise UsageError(CompatMessage.UNKNOWN_PRECISION, value=precision)
    engines = [name for name in ENGINES if os.environ.get(name, "").lower() in ("true", "1", "yes")]
    # The variables for which accelerate or transformers start distributed computation.
    signs = [*engines, *(name for name in WORLD_SIZE if os.environ.get(name, "1") not in ("", "1"))]
    signs += [name for name in LOCAL_RANK[:1] if os.environ.get(name, "-1") not in ("", "-1")]
    if not signs:
        return LaunchedProcess(precision=precision)
    if missing := [names[0] for names in (RANK, WORLD_SIZE, LOCAL_RANK, *ADDRESS) if _find(names) is None]:
        raise UsageError(CompatMessage.LAUNCHER_ENVIRONMENT_INCOMPLETE, present=signs, missing=missing)
    rank, num_processes = _read_index(RANK, WORLD_SIZE)
    has_local_size = _find(LOCAL_WORLD_SIZE) is not None
    local_rank, local_num_processes = _read_index(LOCAL_RANK, LOCAL_WORLD_SIZE if has_local_size else WORLD_SIZE)
    uses_fsdp = "ACCELERATE_USE_FSDP" in engines
    return LaunchedProcess(rank, num_processes, local_rank, local_num_processes, precision, uses_fsdp, is_launched=True)


def _find(names: tuple[str, ...]) -> str | None:
    return next((name for name in names if os.environ.get(name, "") not in ("", "-1")), None)


def _read_index(index_names: tuple[str, ...], size_names: tuple[str, ...]) -> tuple[int, int]:
    names = [str(_find(index_names)), str(_find(size_names))]
    values = [os.environ[name] for name in names]
    if not all(value.isdecimal() for value in values) or not int(values[0]) < int(values[1]):
        raise UsageError(
            CompatMessage.LAUNCHER_ENVIRONMENT_INVALID, values=[f"{n}={v}" for n, v in zip(names, values, strict=True)]
        )
    return int(values[0]), int(values[1])


@contextmanager
def override_precision(precision: str | None) -> Iterator[None]:
    """Within the block, the launcher requests this precision; None: the environment is not changed."""
    previous = os.environ.get(PRECISION)
    if precision is not None:
        os.environ[PRECISION] = precision
    try:
        yield
    finally:
        if precision is not None:
            os.environ.pop(PRECISION)
            os.environ |= {PRECISION: previous} if previous is not None else {}


def unset_engines() -> None:
    """Removes the variables of engines that transformers sets for a process without a launcher."""
    for name in ENGINES:
        os.environ.pop(name, None)


@contextmanager
def restore_engines_on_error() -> Iterator[None]:
    """If the block fails, restores the variables of engines, which accelerate and transformers set before they check
    them. They would look like those of another job."""
    previous = {name: os.environ.get(name) for name in ENGINES}
    try:
        yield
    except BaseException:
        for name, value in previous.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        raise
