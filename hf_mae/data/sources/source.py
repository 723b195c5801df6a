"""Opens a data source: the only place that decides what an address is, by its content and not by its suffix."""

import logging
from collections import Counter
from functools import cache, cached_property
from importlib import import_module

from ...errors import UsageError, inform
from ...files.archive_members import forget_remote_states
from ...settings.sources import SOURCES
from ..messages import DataMessage
from .frame_rows import expand_frames
from .kinds import Samples, SourceKind, SourceOptions
from .location import Location

logger = logging.getLogger(__name__)


@cache
def load_reader(reader: str) -> SourceKind:
    """Imports the reader of an entry of `SOURCES`, given as `MODULE:CONSTANT`."""
    module, constant = reader.split(":")
    kind: SourceKind = getattr(import_module(f".{module}", __package__), constant)
    return kind


class Source:
    """A data source: a location and the kind of source that reads it."""

    def __init__(self, kind: SourceKind, location: Location, options: SourceOptions):
        self.kind, self.location, self.options = kind, location, options

    @property
    def uri(self) -> str:
        """The address, as given."""
        return self.location.uri

    @property
    def is_packed(self) -> bool:
        """Whether the images are inside archives or tables, not separate files."""
        return self.kind.is_packed

    @cached_property
    def samples(self) -> Samples:
        """The images, and what the source states about them; what it leaves out is logged."""
        samples = self.kind.read(self.location, self.options)
        log_ignored(self.uri, samples.excluded)
        return expand_frames(samples, self.options.frames) if self.options.frames else samples

    def stream_files(self) -> tuple[list[str], int | None]:
        """Returns the files that can be streamed, and the number of images if it is known without reading them."""
        list_files = self.kind.stream_files
        return list_files(self.location) if list_files else ([], None)


def log_ignored(source: str, counts: Counter[str]) -> None:
    """Logs the number of files that are not images of a source, by reason."""
    if counts:
        ignored = [f"{count} {reason}" for reason, count in sorted(counts.items())]
        inform(logger, DataMessage.FILES_IGNORED, source=source, ignored=ignored)


def open_source(uri: str, options: SourceOptions | None = None) -> Source:
    """Opens a folder, manifest, archive, table, saved dataset (local or remote) or Hub dataset.

    Raises:
        UsageError: If it does not exist, cannot be reached, or is of no such kind.
    """
    location, options = Location(uri), options or SourceOptions()
    if location.is_remote:
        forget_remote_states(uri)
    for entry in reversed(SOURCES.values()):
        kind = load_reader(entry.reader)
        if kind.matches(location, options):
            return Source(kind, location, options)
    raise UsageError(DataMessage.NO_DATA_AT_URL if location.is_remote else DataMessage.NOT_A_DATA_SOURCE, source=uri)
