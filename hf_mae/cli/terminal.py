"""The only functions of the command line that print: text without control codes, passwords and tokens."""

import json
import logging
import sys
import traceback
from types import TracebackType
from typing import Any, TextIO

from ..errors import escape_control_characters
from ..files.redaction import redact


def clean(text: str) -> str:
    """Returns a text for people: control codes are escaped, passwords and tokens removed."""
    return escape_control_characters(redact(text).replace("\r\n", "\n"))


def print_text(*texts: object, end: str = "\n", flush: bool = False) -> None:
    """Prints texts on standard output."""
    print(*(clean(str(text)) for text in texts), end=end, flush=flush)


def print_message(text: str) -> None:
    """Prints a line on standard error."""
    print(clean(text), file=sys.stderr)


def print_json(values: Any) -> None:
    """Prints JSON in ASCII, in which control characters of names are escaped by the rules of JSON."""
    print(redact(json.dumps(values, indent=2, default=str)).replace("\x7f", "\\u007f"))


def print_exception(error_type: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints the traceback of an error; a `sys.excepthook`."""
    print_message("".join(traceback.format_exception(error_type, error, trace)).rstrip("\n"))


class CleanFormatter(logging.Formatter):
    """Formats log lines as text for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        return clean(super().format(record))


class EscapingStream:
    """A terminal for a table, whose control characters are escaped. Pipes and files get the table unchanged."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes the escaped text."""
        return self._stream.write(escape_control_characters(text.replace("\r\n", "\n")))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
