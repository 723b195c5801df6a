"""What every room may raise: a user's mistake, whose message is a sentence on what is wrong, where, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class UsageError(ValueError):
    """Shown by the command line as it is, without a traceback, with a non-zero exit status."""

    status = 1  # a run that failed


class CommandLineError(UsageError):
    """A command line (or recipe) that is wrong by itself, whatever the files are."""

    status = 2


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
    """What an exception says, on one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of what an exception says; its kind where it says nothing."""
    return str(error).strip().split("\n")[0] or type(error).__name__
