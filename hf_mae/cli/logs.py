"""Log lines on the terminal."""

import gc
import logging
import os
import sys

from ..compat.launchers import read_launch
from .terminal import CleanFormatter


def configure_logging(quiet: bool = False) -> None:
    """Sends the log of this package to stderr, on the main process only; transformers logs errors only.

    Call it after the imports of a command: it turns garbage collection on again and excludes imported objects from it.

    Args:
        quiet: log errors only, without progress bars.
    """
    gc.freeze()
    gc.enable()
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(CleanFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.captureWarnings(True)
    is_main_process = read_launch().rank == 0
    logging.getLogger("hf_mae").setLevel(logging.INFO if is_main_process and not quiet else logging.ERROR)
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"
