"""What a user's mistake raises: its message is a sentence on what is wrong, where, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class UsageError(ValueError):
    """Shown by the command line as it is, without a traceback, with a non-zero exit status."""


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean X?)`, where a known name is near a mistyped one; else nothing."""
    close = get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
