"""Log of the images that were found and excluded while a dataset was loaded (for the participant flow diagram).

Loaders record exclusions. Within `track_exclusions()` the records are collected; elsewhere they are dropped.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

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
    UNUSED_SPLIT = "unused_split"  # split


@dataclass(frozen=True)
class Exclusion:
    """Images that were excluded for one reason: their number, and the names of some of them."""

    reason: ExclusionReason
    images: int
    detail: str | float | None = None
    examples: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Relabelling:
    """Images whose labels were changed by a file of corrections."""

    source_file: str
    images: int


@dataclass
class ExclusionLog:
    """Number of images that were found (None: unknown), and those that were excluded or relabelled."""

    total: int | None = None
    excluded: list[Exclusion] = field(default_factory=list)
    relabelled: Relabelling | None = None
    manifest: Path | None = None  # the table of the images


_current_log: ContextVar[ExclusionLog | None] = ContextVar("exclusion_log", default=None)


@contextmanager
def track_exclusions() -> Iterator[ExclusionLog]:
    """Collects records within the block."""
    exclusion_log = ExclusionLog()
    token = _current_log.set(exclusion_log)
    try:
        yield exclusion_log
    finally:
        _current_log.reset(token)


def record_total(count: int) -> None:
    """Starts the log of a dataset with its number of images."""
    if (exclusion_log := _current_log.get()) is not None:
        exclusion_log.total = count
        exclusion_log.excluded.clear()


def record_excluded(
    reason: ExclusionReason, count: int, file_names: Sequence[str] = (), detail: str | float | None = None
) -> None:
    """Records images that are part of the total and are excluded."""
    if count and (exclusion_log := _current_log.get()) is not None:
        exclusion_log.excluded.append(Exclusion(reason, count, detail, list(file_names[:MAX_EXAMPLES])))


def record_relabelled(source_file: str, count: int) -> None:
    """Records images whose labels were changed by a file of corrections."""
    if count and (exclusion_log := _current_log.get()) is not None:
        exclusion_log.relabelled = Relabelling(source_file, count)


def record_manifest(path: Path) -> None:
    """Records the table that lists the images."""
    if (exclusion_log := _current_log.get()) is not None:
        exclusion_log.manifest = path


def record_unused(reason: ExclusionReason, count: int) -> None:
    """Records images that were found and are not used, and adds them to the total."""
    if count and (exclusion_log := _current_log.get()) is not None:
        exclusion_log.total = (exclusion_log.total or 0) + count
        record_excluded(reason, count)
