"""Entry point: parses a command line, calls the workflow, prints its result.

Exit status: 0: success; 1: failed run; 2: invalid command line; 75: stopped by a signal, can be resumed; 130: Ctrl-C.
"""

import gc
import io
import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import TextIO

from .. import __version__
from ..errors import UsageError, raise_on_stop_signal
from ..files.atomic import is_disk_full_error
from ..settings.commands import INFORMATION, commands_by_task, find_command
from ..settings.inputs import check_inputs
from ..settings.parse import build_settings
from .messages import CliMessage
from .parser import ParsedArgs, Parser
from .terminal import EscapingStream, print_exception, print_message, print_text


def usage() -> str:
    """Returns the text of `hf-mae --help`: commands by task."""
    lines = ["usage: hf-mae COMMAND [ARGUMENTS] [flags]"]
    for task, commands in commands_by_task().items():
        lines += ["", f"{task}:", *(f"  {command.name:13} {command.summary}" for command in commands)]
    return "\n".join([*lines, "", "Run 'hf-mae COMMAND --help' for the flags of a command."])


def main(argv: list[str] | None = None) -> int:
    """Runs a command line and returns the exit status. Prints errors that the user can fix instead of raising them."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _run(argv)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of the output has exited
        _discard_output(sys.stdout, sys.stderr)
    except OSError as error:  # the disk of the output is full
        print_message(f"hf-mae: Cannot write the output ({error.strerror}).")
        _discard_output(sys.stdout)
    return 1


def _discard_output(*streams: TextIO) -> None:
    """Redirects streams to nowhere, so that Python can close them."""
    with suppress(OSError, ValueError):  # a stream of a test or a notebook
        for stream in streams:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def prepare_streams() -> None:
    """Makes the standard streams usable: closed ones discard text, and a character that the encoding lacks is escaped.

    A service may start a program with closed streams, whose numbers the next open files would get. A terminal of
    Windows (cp1252) or the POSIX locale (ASCII) cannot print all class names.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print_text(usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        print_text(f"hf_mae {__version__}")
        return 0
    command = argv.pop(0)
    try:
        find_command(command)
    except UsageError as error:
        print_message(f"hf-mae: {error}")
        return error.status
    try:
        return run_command(command, argv)
    except KeyboardInterrupt as interrupt:
        print_message(f"hf-mae {command}: {str(interrupt) or 'interrupted'}")
        return getattr(interrupt, "status", 130)


def run_command(command: str, argv: list[str]) -> int:
    """Runs a command and returns the exit status. HF_MAE_DEBUG=1 raises errors instead of printing their message."""
    try:
        with raise_on_stop_signal(""):
            args = Parser(command).parse(argv)
            check_inputs(command, args.options.values)
            return _execute(command, args)
    except SystemExit as exit_request:  # --help
        return int(exit_request.code or 0)
    except UsageError as error:
        _reraise_when_debugging(error)
        print_message(f"hf-mae {command}: {error}")
        return error.status
    except Exception as error:  # e.g. a folder that is not writable, or a full disk
        description = _describe_system_error(error)
        if description is None:
            raise
        _reraise_when_debugging(error)
        print_message(f"hf-mae {command}: {description}")
        return 1


def _execute(command: str, args: ParsedArgs) -> int:
    """Calls the workflow of a command and prints the result."""
    from .logs import configure_logging
    from .output import print_result

    name = find_command(command).function_name
    workflow = getattr(import_module(f"..workflows.{name}", __package__), name)
    if find_command(command).task != INFORMATION or args.options.values.get("action") == "fetch":
        configure_logging(args.quiet)
    table = EscapingStream(sys.stdout) if sys.stdout.isatty() else sys.stdout
    outputs = {"stream": table} if command == "predict" else {}
    result = workflow.run(build_settings(args.options), **outputs)
    return print_result(name, result, args) if result is not None else 0


def _describe_system_error(error: Exception) -> str | None:
    """Returns the message for an error of the operating system; None for an error of this package."""
    location = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    if is_disk_full_error(error):
        return CliMessage.DISK_FULL.render(location=location)
    if isinstance(error, OSError) and error.strerror and not isinstance(error, BrokenPipeError):
        return f"{location}{error.strerror}."
    return None


def _reraise_when_debugging(error: Exception) -> None:
    if os.environ.get("HF_MAE_DEBUG") == "1":
        raise error


def console_main(argv: list[str] | None = None) -> None:
    """Runs a command line and ends the process, together with the other processes of a distributed run.

    Garbage collection is off during imports and at the end: imports create half a million permanent objects, and
    scanning them repeatedly takes a third of the time of a short command. `cli.logs` turns it on in between.
    """
    gc.disable()
    prepare_streams()
    sys.excepthook = print_exception
    status = main(argv)
    if "torch" in sys.modules:
        from ..compat.torch import exit_all_ranks

        exit_all_ranks(status)
    gc.freeze()
    sys.exit(status)
