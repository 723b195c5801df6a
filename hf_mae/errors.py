"""Errors of hf_mae: message catalogues, the exceptions that carry them, and signals that stop a process.

Each package has a module `messages` with a subclass of `Message`: one member per cause and fix. A user's mistake
raises `UsageError(SomeMessage.MEMBER, attribute=value, ...)`; a warning is logged with `warn(logger,
SomeMessage.MEMBER, ...)`.
"""

import logging
import signal
import string
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from enum import Enum
from typing import Any

MAX_TEXT_LENGTH = 2000  # characters of a text in a message; a longer one, such as a damaged name, is shortened
MAX_MESSAGE_LENGTH = 300  # characters of a value or of another library's message that are repeated


class Message(Enum):
    """Base of the message catalogues. The value of a member is a template for `str.format`.

    Two format specs are added: `{names:list}` joins the items with commas, and `{n:count image}` gives `1 image` or
    `3 images` (with agreement: `{n:count image|is|are}`). `!r` shortens a long value.
    """

    def render(self, **attributes: object) -> str:
        """Fills in the attributes of the message; a missing attribute stays as `{name}`."""
        return _MessageFormatter().vformat(self.value, (), attributes)


class _MessageFormatter(string.Formatter):
    def get_value(self, key: int | str, args: Any, kwargs: Any) -> Any:
        return kwargs.get(str(key), f"{{{key}}}")

    def convert_field(self, value: Any, conversion: Any) -> Any:
        return short_repr(value) if conversion == "r" else super().convert_field(value, conversion)

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec == "list":
            return ", ".join(_shorten(str(item)) for item in value)
        if format_spec.startswith("count "):
            noun, *forms = format_spec.removeprefix("count ").split("|")
            return pluralize(value, noun, *forms)
        if isinstance(value, str) and len(value) > MAX_TEXT_LENGTH:
            return _shorten(value)
        return str(super().format_field(value, format_spec))


class UsageError(ValueError):
    """A user's mistake. The command line prints the message without a traceback.

    Args:
        message: a member of a message catalogue; text only if another process rendered it.
        attributes: values of the fields of the message.

    Attributes:
        code: the member of the catalogue (None for text).
        attributes: as given.
    """

    status = 1  # exit status of a failed run

    def __init__(self, message: Message | str, **attributes: Any):
        self.code = message if isinstance(message, Message) else None
        self.attributes = attributes
        super().__init__(message.render(**attributes) if isinstance(message, Message) else message)


class CommandLineError(UsageError):
    """A wrong command line, recipe or setting; no file was read yet."""

    status = 2


def warn(logger: logging.Logger, message: Message, **attributes: Any) -> None:
    """Logs a warning; the log record has the attributes `code` and `attributes`."""
    _log(logger, logging.WARNING, message, attributes)


def inform(logger: logging.Logger, message: Message, **attributes: Any) -> None:
    """Logs a line of information; the log record has the attributes `code` and `attributes`."""
    _log(logger, logging.INFO, message, attributes)


def _log(logger: logging.Logger, level: int, message: Message, attributes: dict[str, Any]) -> None:
    if logger.isEnabledFor(level):
        text = message.render(**attributes)
        logger.log(level, "%s", text, extra={"code": message, "attributes": attributes}, stacklevel=3)


# SIGTERM: a scheduler or a closed terminal. SIGUSR1 (not on Windows): SLURM's --signal, before the time limit.
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))


class Interrupted(KeyboardInterrupt):
    """The process was interrupted by a signal. Not an `Exception`, so that it is not taken for a bad-image error."""

    status = 75  # EX_TEMPFAIL of sysexits.h: try again


@contextmanager
def raise_on_stop_signal(hint: str) -> Iterator[None]:
    """Within the block, SIGTERM and SIGUSR1 (SLURM's `--signal`) raise `Interrupted`, so that partial output is
    removed. During training they save a checkpoint instead (`training.preemption`).

    Args:
        hint: text that follows "interrupted by SIGTERM".
    """

    def handle_signal(number: int, frame: Any) -> None:
        raise Interrupted(f"interrupted by {signal.Signals(number).name}{hint}")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = install_signal_handlers(STOP_SIGNALS, handle_signal)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def install_signal_handlers(
    numbers: Iterable[signal.Signals], handler: Callable[[int, Any], None]
) -> dict[signal.Signals, Any]:
    """Installs a signal handler and returns the previous ones.

    A signal that is ignored stays ignored: a script that starts a run in the background (`&`, `nohup`) ignores Ctrl-C.
    """
    return {number: signal.signal(number, handler) for number in numbers if signal.getsignal(number) != signal.SIG_IGN}


def abbreviate_list(names: Sequence[str]) -> str:
    """Lists names; if there are more than three, the first two and the number of the others."""
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"


def pluralize(number: int, noun: str, singular: str = "", plural: str = "") -> str:
    """Formats a count and its noun: `1 image`, `2 images`, `3 classes`; with agreement: `1 image is`."""
    if number == 1:
        return f"{number} {noun} {singular}".rstrip()
    return f"{number} {noun}{'es' if noun.endswith('s') else 's'} {plural}".rstrip()


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Returns ` (did you mean X?)` if a candidate is similar to `name`; otherwise an empty string."""
    close = get_close_matches(name, list(candidates), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def escape_control_characters(text: str) -> str:
    """Escapes control codes (colours, cursor, window title), so that a terminal does not execute them."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape", "replace").decode() for c in text
    )


def summarize_exception(error: BaseException) -> str:
    """Returns the message of an exception on one line, shortened; its class name if it has no message."""
    return _shorten(" ".join(str(error).split()) or type(error).__name__)


def short_repr(value: object) -> str:
    """Returns `repr(value)`, shortened."""
    return _shorten(repr(value))


def first_error_line(error: BaseException) -> str:
    """Returns the first line of an exception's message, shortened; its class name if it has no message."""
    return _shorten(str(error).strip().split("\n")[0] or type(error).__name__)


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE_LENGTH else f"{text[:MAX_MESSAGE_LENGTH]}..."
