"""Notes of what is found and left out while a data set is read.

Whoever reads one notes it; within `followed()` the notes are kept, elsewhere they go nowhere.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

MAX_EXAMPLES = 5  # file names that are kept of what was left out

ExclusionLog = dict[str, Any]
_current_log: ContextVar[ExclusionLog | None] = ContextVar("exclusion_log", default=None)


@contextmanager
def track_exclusions() -> Iterator[ExclusionLog]:
    """Within the block, what is found and left out is noted: `found` images, and `left_out`, a list of `why`, `images`
    and `examples`, in the order in which it happened."""
    exclusion_log: ExclusionLog = {"total": None, "excluded": []}
    token = _current_log.set(exclusion_log)
    try:
        yield exclusion_log
    finally:
        _current_log.reset(token)


def record_total(count: int) -> None:
    """A data set is read, from the start."""
    if (exclusion_log := _current_log.get()) is not None:
        exclusion_log["total"] = count
        exclusion_log["excluded"].clear()


def record_excluded(reason: str, count: int, file_names: Sequence[str] = ()) -> None:
    """Images of what was found are not used."""
    if count and (exclusion_log := _current_log.get()) is not None:
        exclusion_log["excluded"].append(
            {"reason": reason, "images": count, "examples": list(file_names[:MAX_EXAMPLES])}
        )


def record_relabelled(source_file: str, count: int) -> None:
    """Images that have another label than they came with, as a file says."""
    if count and (exclusion_log := _current_log.get()) is not None:
        exclusion_log["relabelled"] = {"source_file": source_file, "images": count}


def record_unused(reason: str, count: int) -> None:
    """Images that were found beside those that are read, and are not used."""
    if count and (exclusion_log := _current_log.get()) is not None:
        exclusion_log["total"] = (exclusion_log["total"] or 0) + count
        record_excluded(reason, count)
