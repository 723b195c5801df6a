"""torch: the default random generator of the CPU, the memory of tensors, and the errors and the exit of DataLoader
workers and distributed processes.

Verified with torch 2.11 to 2.15.
"""

import atexit
import os
import re
import socket
import sys
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from multiprocessing import queues
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from ..errors import UsageError, escape_control_characters
from .launchers import LaunchedProcess
from .messages import CompatMessage

PEER_TIMEOUT = 45.0  # seconds that processes may differ in their start
ANSWER_TIMEOUT = 10.0  # seconds until a server that runs answers
_stores: dict[tuple[str, int], Any] = {}  # a server lives as long as its object
# Messages of gloo and NCCL after another process ended: errors of gloo have no type of their own.
_CONNECTION_LOST = re.compile(
    r"connection (was )?(closed|reset)|connection refused|broken pipe|timed out|remote process exited|socket|nccl|peer",
    re.IGNORECASE,
)


def get_cpu_generator() -> torch.Generator:
    """Returns the generator of `torch.rand`. (`torch.manual_seed` also checks all accelerators: 0.1 ms per image.)"""
    return torch.default_generator


@contextmanager
def load_weights_only(classes: Sequence[type]) -> Iterator[None]:
    """Within the block, every `torch.load` builds tensors, plain values and `classes` only, whatever its caller asks.

    DeepSpeed and torch.distributed.checkpoint load with `weights_only=False`.
    """
    names = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ[names[0]] = "1"
    try:
        with torch.serialization.safe_globals(list(classes)):
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ |= {} if value is None else {name: value}


def exit_worker() -> None:
    """Ends a DataLoader worker immediately, like torch's own handler of a parent's SIGTERM.

    torch reports a worker with any other status than 0 as dead.
    """
    os._exit(0)


def exit_on_lost_batch(worker: int = 0) -> None:
    """Makes this DataLoader worker end if it cannot pass a batch to its parent; a `worker_init_fn`.

    multiprocessing only prints the error (no shared memory, a path of TMPDIR that is too long for a socket), and the
    parent would wait forever. torch reports a worker that ended within seconds.
    """

    def end_worker(error: Exception, batch: Any) -> None:
        text = escape_control_characters(f"A process that loads images cannot pass a batch: {error}")
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
        os._exit(1)

    queues.Queue._on_queue_feeder_error = staticmethod(end_worker)  # type: ignore[attr-defined]


def get_worker_error_text(error: Exception) -> str:
    """Returns the message of an error. torch raises an error of a worker again with its traceback as message, which
    ends with the class and the message of the error."""
    return str(error).strip().rpartition(f"{type(error).__name__}: ")[2]


def is_connection_lost(error: RuntimeError) -> bool:
    """Whether a collective operation failed because another process ended."""
    return isinstance(error, torch.distributed.DistError) or bool(_CONNECTION_LOST.search(str(error)))


def wait_for_peers(launch: LaunchedProcess, seconds: float = PEER_TIMEOUT) -> None:
    """Waits until the processes of a launch have met at its store: that of the launcher, or of the main process.

    Raises:
        UsageError: If they do not, e.g. because the environment contains variables of an earlier launch.
    """
    if launch.num_processes == 1 or torch.distributed.is_initialized():
        return
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if address in _stores:
        return
    has_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # the launcher's store is there before us
    is_server = launch.rank == 0 and not has_agent
    try:
        if not is_server:
            _wait_for_server(address, seconds)
        _stores[address] = torch.distributed.TCPStore(
            *address,
            launch.num_processes,
            is_master=is_server,
            timeout=timedelta(seconds=seconds if is_server else ANSWER_TIMEOUT),
            wait_for_workers=not has_agent,
            multi_tenant=True,  # the process group then uses the same server
        )
    except (RuntimeError, ValueError, OSError):
        raise UsageError(
            CompatMessage.PEERS_MISSING,
            num_processes=launch.num_processes,
            seconds=seconds,
            names=["WORLD_SIZE", "RANK", "LOCAL_RANK"],
        ) from None


def _wait_for_server(address: tuple[str, int], seconds: float) -> None:
    """Waits until a server listens; torch itself waits twice the time, and prints its stack. Raises OSError."""
    end = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection(address, timeout=ANSWER_TIMEOUT).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


class AllocatedMemory(TorchDispatchMode):
    """Within the block, records in `history`, after each operation, the bytes of the tensors in use that this thread
    created.

    Args:
        existing: tensors that are not counted.
    """

    def __init__(self, existing: Iterable[torch.Tensor]):
        super().__init__()
        self.history: list[int] = []
        self._in_use = 0
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()  # storage -> reference that reports its end
        for tensor in existing:
            self._known[tensor.untyped_storage()] = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage()) not in self._known:
                self._known[storage] = weakref.ref(storage, partial(self._subtract, storage.nbytes()))
                self._in_use += storage.nbytes()
        self.history.append(self._in_use)
        return output

    def _subtract(self, count: int, reference: Any) -> None:
        self._in_use -= count


def is_compiler_error(error: BaseException | None) -> bool:
    """Whether an error, or the error that caused it, is one of `torch.compile`."""
    while error is not None:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor", "triton")):
            return True
        error = error.__cause__ or error.__context__
    return False


def move_schedule(scheduler: Any, groups: list[dict[str, Any]], update: int) -> None:
    """Moves a `LambdaLR` to an update, with the `initial_lr` of the parameter groups."""
    scheduler.last_epoch = update
    scheduler.base_lrs = [group["initial_lr"] for group in groups]
    for group, factor in zip(groups, scheduler.lr_lambdas, strict=True):
        group["lr"] = group["initial_lr"] * factor(update)
    scheduler._last_lr = [group["lr"] for group in groups]


def exit_all_ranks(status: int) -> None:
    """Ends all processes of a distributed run together; does nothing in a run with a single process.

    A gloo thread that frees a tensor while Python exits aborts the process, and the launcher then ends the others.
    Therefore, the processes wait for each other and exit without Python's finalization; `atexit` functions are called.
    This is the last call of a program: it does not return.
    """
    distributed: Any = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return
    try:
        distributed.barrier()
    except RuntimeError:  # another process has ended and reports the reason
        return
    distributed.destroy_process_group()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
