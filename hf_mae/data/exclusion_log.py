"""Log of the images that were found and excluded while a dataset was loaded (for the participant flow diagram).

Loaders record exclusions. Within `track_exclusions()` the records are collected; elsewhere they are dropped.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from pathlib import Path
from typing import Any

MAX_EXAMPLES = 5  # file names per reason


class ExclusionReason(str, Enum):
    """Why images were excluded; the comment says what `detail` is."""

    UNREADABLE = "unreadable"
    IN_ANOTHER_SPLIT = "in_another_split"
    REMOVED_BY_CORRECTIONS = "removed_by_corrections"  # file name
    LISTED_IN_FILE = "listed_in_file"  # file name
    BEYOND_TRAIN_FRACTION = "beyond_train_fraction"  # the fraction
    TWO_LABELS = "two_labels"
    NOT_IN_BENCHMARK = "not_in_benchmark"
    CLASS_NOT_IN_MODEL = "class_not_in_model"  # class


ExclusionLog = dict[str, Any]
_current_log: ContextVar[ExclusionLog | None] = ContextVar("exclusion_log", default=None)


@contextmanager
def track_exclusions() -> Iterator[ExclusionLog]:
    """Collects records within the block.

    The log has `total` (images found), `excluded`, a list of `reason`, `detail`, `images` and `examples` in the order
    of the records, and `manifest`, the table of the images, if there is one.
    """
    exclusion_log: ExclusionLog = {"total": None, "excluded": []}
    token = _current_log.set(exclusion_log)
    try:
        yield exclusion_log
    finally:
        _current_log.reset(token)


def record_total(count: int) -> None:
    """Starts the log of a dataset with its number of images."""
    if (exclusion_log := _current_log.get()) is not None:
        exclusion_log["total"] = count
        exclusion_log["excluded"].clear()


def record_excluded(
    reason: ExclusionReason, count: int, file_names: Sequence[str] = (), detail: str | float | None = None
) -> None:
    """Records images that are part of the total and are excluded."""
    if count and (exclusion_log := _current_log.get()) is not None:
        step = {"reason": reason, "detail": detail, "images": count, "examples": list(file_names[:MAX_EXAMPLES])}
        exclusion_log["excluded"].append(step)


def record_relabelled(source_file: str, count: int) -> None:
    """Records images whose labels were changed by a file of corrections."""
    if count and (exclusion_log := _current_log.get()) is not None:
        exclusion_log["relabelled"] = {"source_file": source_file, "images": count}


def record_manifest(path: Path) -> None:
    """Records the table that lists the images."""
    if (exclusion_log := _current_log.get()) is not None:
        exclusion_log["manifest"] = path


def record_unused(reason: ExclusionReason, count: int) -> None:
    """Records images that were found and are not used, and adds them to the total."""
    if count and (exclusion_log := _current_log.get()) is not None:
        exclusion_log["total"] = (exclusion_log["total"] or 0) + count
        record_excluded(reason, count)
