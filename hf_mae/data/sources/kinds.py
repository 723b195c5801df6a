"""What every kind of source provides: its images, what it states about them, and what it leaves out."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..exclusion_log import ExclusionReason
from .location import Location

DIGEST_COLUMN = "digest"  # hash of the pixels, if it is known


@dataclass(frozen=True)
class BenchmarkOptions:
    """The benchmark whose images a source has; see the flags of the same names. `split_files`: `--split_file`."""

    name: str
    fold: int = 1
    agreement: str | None = None
    split_files: Sequence[str] | None = None
    on_bad_image: str = "error"


@dataclass(frozen=True)
class SourceOptions:
    """Options of the user that decide how a source is read; see the flags of the same names.

    Args:
        labelled: the classes are needed. If False, only `image`, `file_name` and `digest` are read.
    """

    manifest: str | None = None
    benchmark: BenchmarkOptions | None = None
    split_from: str | None = None
    class_level: int | None = None
    group_column: str | None = None
    group_pattern: str | None = None
    labelled: bool = True
    frames: str | None = None


@dataclass
class Samples:
    """The images of a source, and what the source states about them.

    Args:
        data: with `image` (path, member of an archive, or bytes), `file_name`, `digest` if it is known, and other
            columns that are kept.
        paths: path of each image below the root, as the source has it; an empty text if the name was made up.
        stored_paths: path of each image in its archive or table, if `paths` are those of sidecar files or a column.
        stated: functions that return the values of `label`, `group`, and the columns of splits, one per image.
        containers: name of the archive or table file of each image below the root; None for separate files.
        class_names: the classes in the order of their ids, if the source states it.
        excluded: reason -> number of files that are not images of the source.
        unused: images that were found and are not used by the source, for the exclusion log.
        manifest: the only manifest of the source, if it has one.
        empty_folders: class folders without images.
        locate: returns the location of a value (row, column), for messages.
        is_final: splits and groups are official or written by this package; names are not compared with them.
        labels_required: the classes must be stated; they are not taken from folders.
    """

    data: Dataset
    paths: Callable[[], Sequence[str]]
    stored_paths: Callable[[], Sequence[str]] | None = None
    stated: Mapping[str, Callable[[], Sequence[Any]]] = field(default_factory=dict)
    containers: Callable[[], Sequence[str]] | None = None
    class_names: list[str] | None = None
    excluded: Counter[str] = field(default_factory=Counter)
    unused: Counter[ExclusionReason] = field(default_factory=Counter)
    manifest: Path | None = None
    empty_folders: list[str] = field(default_factory=list)
    locate: Callable[[int, str], str] = field(default=lambda row, column: f"row {row}, {column}")
    is_final: bool = False
    labels_required: bool = False

    @property
    def extra_columns(self) -> list[str]:
        """The columns of `data` that are kept, besides those of this package."""
        return [name for name in self.data.column_names if name not in ("image", "file_name", DIGEST_COLUMN)]

    def values(self, column: str) -> Sequence[Any] | None:
        """Returns the values of a column; None if the source does not state them."""
        return self.stated[column]() if column in self.stated else None


@dataclass(frozen=True)
class SourceKind:
    """A kind of data source.

    Args:
        matches: whether a location is of this kind.
        read: lists the images; nothing is copied.
        is_packed: the images are inside archives or tables.
        stream_files: returns the files that can be streamed, and the number of images if it is known.
    """

    matches: Callable[[Location, SourceOptions], bool]
    read: Callable[[Location, SourceOptions], Samples]
    is_packed: bool = False
    stream_files: Callable[[Location], tuple[list[str], int | None]] | None = None
