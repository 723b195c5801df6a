"""Bounds on the model of an untrusted configuration: it is built without memory first, and counted meanwhile.

The names of the fields do not matter, so one bound holds for each network of transformers and timm.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.nn.modules import module as torch_hooks

from ..errors import first_error_line
from .messages import ConversionError, ConversionMessage

MAX_PARTS = 15_000  # modules, parameters and buffers; the largest models of timm have 5,000
MAX_VALUES = 10_000_000_000  # parameters and buffers of a model whose weights are not in a local file
MAX_SECONDS = 20  # of CPU time; a large model takes two
TICK = 0.1


def build_within_bounds(build: Callable[[], Any], source: str, max_values: int = MAX_VALUES) -> Any:
    """Builds a model on the meta device, and returns it.

    Args:
        build: builds the model.
        max_values: parameters and values of buffers.

    Raises:
        ConversionError: If the model exceeds a bound, or cannot be built; its cause is the error of the model.
    """
    try:
        with torch.device("meta"), _counted(source, max_values):
            return build()
    except ConversionError:
        raise
    except Exception as error:  # transformers and timm raise any class for unexpected values
        raise ConversionError(
            ConversionMessage.CANNOT_BUILD_MODEL, source=source, reason=first_error_line(error)
        ) from error


@contextmanager
def _counted(source: str, max_values: int) -> Iterator[None]:
    """Stops the block when the parts, values or seconds exceed their bounds."""
    thread, began = threading.get_ident(), time.thread_time()
    parts = values = 0
    stopped = False

    def check() -> None:
        nonlocal stopped
        if stopped:  # a second error would interrupt the clean-up after the first
            return
        if parts > MAX_PARTS or values > max_values or time.thread_time() - began > MAX_SECONDS:
            stopped = True
            raise ConversionError(ConversionMessage.MODEL_TOO_LARGE, source=source, parts=parts, millions=values / 1e6)

    def count(owner: Any, name: str, added: Any) -> None:
        nonlocal parts, values
        if threading.get_ident() == thread and added is not None:
            is_tensor = isinstance(added, torch.Tensor) and not torch.nn.parameter.is_lazy(added)
            parts += 1
            values += added.numel() if is_tensor else 0
            check()

    with ExitStack() as stack:
        for register in (
            torch_hooks.register_module_module_registration_hook,
            torch_hooks.register_module_parameter_registration_hook,
            torch_hooks.register_module_buffer_registration_hook,
        ):
            stack.callback(register(count).remove)
        stack.enter_context(_ticks(check))
        yield


@contextmanager
def _ticks(check: Callable[[], None]) -> Iterator[None]:
    """Calls `check` regularly on the main thread, also in a loop that builds no module, if the system has timers."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, lambda *_: check())
    signal.setitimer(signal.ITIMER_VIRTUAL, TICK, TICK)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
