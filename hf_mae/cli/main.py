"""`hf-mae VERB`: finds the verb, and turns what goes wrong into one sentence and an exit status.

0: done; 1: a run that failed; 2: a wrong command line; 75: stopped by a signal, to be resumed; 130: interrupted.
"""

import gc
import os
import sys
from importlib import import_module
from typing import Any, TextIO

from .. import __version__
from ..errors import UsageError, escape_control_characters, raise_on_stop_signal
from ..files.atomic import is_disk_full_error
from ..settings.commands import COMMANDS, find_command


def usage() -> str:
    """What `hf-mae --help` prints."""
    lines = ["usage: hf-mae VERB ... (hf-mae VERB --help tells its flags)", "", "verbs:"]
    lines += [f"  {verb.name:11} {verb.summary}" for verb in COMMANDS.values()]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Runs a command line, and returns its exit status; never raises what a user can do something about."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"hf_mae {__version__}")
        return 0
    verb = argv.pop(0)
    try:
        find_command(verb)
    except UsageError as error:
        print(escape_control_characters(f"hf-mae: {error}"), file=sys.stderr)
        return error.status
    try:
        return run_command(verb, argv)
    except KeyboardInterrupt as left:
        print(escape_control_characters(f"hf-mae {verb}: {str(left) or 'interrupted'}"), file=sys.stderr)
        return getattr(left, "status", 130)
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def run_command(command: str, argv: list[str]) -> int:
    """Runs a verb; a user's mistake becomes one sentence on stderr and an exit status (HF_MAE_DEBUG=1: raises it)."""
    try:
        with raise_on_stop_signal(""):
            return import_module(f".{command.replace('-', '_')}", __package__).main(argv)
    except SystemExit as left:  # --help
        return int(left.code or 0)
    except UsageError as error:
        _reraise_when_debugging(error)
        print(escape_control_characters(f"hf-mae {command}: {error}"), file=sys.stderr)
        return error.status
    except Exception as error:  # a folder that cannot be written, a full disk
        sentence = _describe_system_error(error)
        if sentence is None:
            raise
        _reraise_when_debugging(error)
        print(escape_control_characters(f"hf-mae {command}: {sentence}"), file=sys.stderr)
        return 1


def _describe_system_error(error: Exception) -> str | None:
    """What a user is told of an error of the system; None: it is a fault of this package."""
    where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    if is_disk_full_error(error):
        return (
            f"{where}the disk is full. What stood there before still stands: make room, and give the same command "
            "again (a training with --resume_from_checkpoint last, `predict` with --resume)."
        )
    if isinstance(error, OSError) and error.strerror and not isinstance(error, BrokenPipeError):
        return f"{where}{error.strerror}."
    return None


def _reraise_when_debugging(error: Exception) -> None:
    if os.environ.get("HF_MAE_DEBUG") == "1":
        raise error


class EscapingStream:
    """A terminal to which names and values of any kind are printed: it is never told to do anything by them.

    What goes into a file or another program is left as it is.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """As of the stream; codes are shown, not obeyed."""
        return self._stream.write(escape_control_characters(text.replace("\r\n", "\n")))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def console_main(argv: list[str] | None = None) -> None:
    """The program: runs a command line, and ends the process (together with the others of a distributed run).

    Packages make half a million objects that stay. To look through them again and again while they are imported, and
    once more at the end, takes a third of a short command's time: it is left out (`cli.logs` turns it on between).
    """
    gc.disable()
    if sys.stdout.isatty():
        sys.stdout = EscapingStream(sys.stdout)  # whatever it lacks is the stream's
    status = main(argv)
    if "torch" in sys.modules:
        from ..compat.torch import exit_all_ranks

        exit_all_ranks(status)
    gc.freeze()
    sys.exit(status)
