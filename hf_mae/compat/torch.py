"""torch: its generator of random numbers on the CPU, and how workers and processes of a distributed run end.

Verified with torch 2.11 to 2.15.
"""

import atexit
import os
import sys
from typing import Any

import torch


def get_cpu_generator() -> torch.Generator:
    """The generator behind `torch.rand`. (`torch.manual_seed` would look at every accelerator first, 0.1 ms an
    image.)"""
    return torch.default_generator


def exit_worker() -> None:
    """Ends a worker of a DataLoader at once, as torch's own handler of a parent's SIGTERM does: any other status than 0
    is taken for a worker that died."""
    os._exit(0)


def exit_all_ranks(status: int) -> None:
    """Ends this process of a distributed run, together with the others; does nothing where there are no others.

    A gloo thread that still lets go of a tensor while Python exits aborts the process, and the launcher then ends the
    others, too: so all wait for each other, and then leave without Python's own finalisation, but for what was
    registered to be done at exit. For a program's last line alone: it does not return.
    """
    distributed: Any = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return
    try:
        distributed.barrier()
    except RuntimeError:  # another process is gone, and says why
        return
    distributed.destroy_process_group()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
