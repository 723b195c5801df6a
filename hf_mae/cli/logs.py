"""What a verb does when its packages are there: log lines on the terminal, and garbage collection."""

import gc
import logging
import os
import sys

from ..errors import escape_control_characters


class _EscapingFormatter(logging.Formatter):
    """Lines whose names and values cannot command the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return escape_control_characters(super().format(record))


def configure_logging(quiet: bool = False) -> None:
    """Our own log lines on the main process's stderr; of transformers only errors, and no bars for reading a file.

    Args:
        quiet: errors alone, and no bars.

    From here on garbage is collected, of what is not imported.
    """
    gc.freeze()
    gc.enable()
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_EscapingFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    main_process = os.environ.get("RANK", "0") == "0"  # as a launcher says
    logging.getLogger("hf_mae").setLevel(logging.INFO if main_process and not quiet else logging.ERROR)
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"
