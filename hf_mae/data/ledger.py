"""Notes of what is found and left out while a data set is read.

Whoever reads one notes it; within `followed()` the notes are kept, elsewhere they go nowhere.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

EXAMPLES = 5  # file names that are kept of what was left out

Ledger = dict[str, Any]
_open: ContextVar[Ledger | None] = ContextVar("ledger", default=None)


@contextmanager
def followed() -> Iterator[Ledger]:
    """Within the block, what is found and left out is noted: `found` images, and `left_out`, a list of `why`, `images`
    and `examples`, in the order in which it happened."""
    ledger: Ledger = {"found": None, "left_out": []}
    token = _open.set(ledger)
    try:
        yield ledger
    finally:
        _open.reset(token)


def note_found(images: int) -> None:
    """A data set is read, from the start."""
    if (ledger := _open.get()) is not None:
        ledger["found"] = images
        ledger["left_out"].clear()


def note_left_out(why: str, images: int, names: Sequence[str] = ()) -> None:
    """Images of what was found are not used."""
    if images and (ledger := _open.get()) is not None:
        ledger["left_out"].append({"why": why, "images": images, "examples": list(names[:EXAMPLES])})


def note_relabelled(by: str, images: int) -> None:
    """Images that have another label than they came with, as a file says."""
    if images and (ledger := _open.get()) is not None:
        ledger["relabelled"] = {"by": by, "images": images}


def note_beside(why: str, images: int) -> None:
    """Images that were found beside those that are read, and are not used."""
    if images and (ledger := _open.get()) is not None:
        ledger["found"] = (ledger["found"] or 0) + images
        note_left_out(why, images)
