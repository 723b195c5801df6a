"""What every room may raise: a user's mistake, whose message is a sentence on what is wrong, where, and what to do."""

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

LONGEST = 300  # letters of what another library says that are repeated


class UsageError(ValueError):
    """Shown by the command line as it is, without a traceback, with a non-zero exit status."""

    status = 1  # a run that failed


class CommandLineError(UsageError):
    """A command line (or recipe) that is wrong by itself, whatever the files are."""

    status = 2


# SIGTERM: a scheduler, or a closed terminal; SIGUSR1 (not on Windows): SLURM's --signal, ahead of the time limit.
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """The process was told to stop where there was nothing to save. Nobody takes it for a mistake of the images."""

    status = 75  # EX_TEMPFAIL of sysexits.h: try again


@contextmanager
def stops_with_a_word(advice: str) -> Iterator[None]:
    """Within the block, SIGTERM and SIGUSR1 (SLURM's `--signal`) raise `Stopped`, so that whatever was being written is
    cleared away; within training they save a checkpoint (`training.preemption`).

    Args:
        advice: what the sentence says after "told to stop".
    """

    def leave(number: int, frame: Any) -> None:
        raise Stopped(f"told to stop ({signal.Signals(number).name}){advice}")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, leave) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def counted(number: int, what: str, one: str = "", many: str = "") -> str:
    """`1 image`, `2 images`, `3 classes`; with what agrees with it: `1 image is`, `2 images are`."""
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{number} {what} {one}".rstrip() if number == 1 else f"{number} {plural} {many}".rstrip()


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean X?)`, where a known name is near a mistyped one; else nothing."""
    close = get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def printable(text: str) -> str:
    """Text for a terminal: codes that would colour it, move the cursor or rename the window are shown, not obeyed."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape", "replace").decode() for c in text
    )


def one_line(error: BaseException) -> str:
    """What an exception says, on one line and not too long for a sentence; its kind where it says nothing."""
    return _bounded(" ".join(str(error).split()) or type(error).__name__)


def shown(value: object) -> str:
    """A value as Python writes it, if not too long for a sentence."""
    return _bounded(repr(value))


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, if not too long for a sentence; its kind where it says nothing."""
    return _bounded(str(error).strip().split("\n")[0] or type(error).__name__)


def _bounded(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
