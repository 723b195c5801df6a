"""Opens a data source: the only place that decides what an address is, by its content and not by its suffix."""

import logging
from functools import cached_property

from ...errors import UsageError, inform
from ..messages import DataMessage
from . import archive, folder, manifest, table
from .frame_rows import expand_frames
from .kinds import Samples, SourceKind, SourceOptions
from .location import Location

logger = logging.getLogger(__name__)

# The kinds of sources. The last one that matches is used, so an added kind comes before those of the package.
SOURCES: dict[str, SourceKind] = {
    "hub": table.HUB,
    "folder": folder.FOLDER,
    "table": table.TABLES,
    "archive": archive.ARCHIVES,
    "manifest": manifest.MANIFEST,
    "saved": table.SAVED,
    "shards": archive.SHARDS,
}


class Source:
    """A data source: `kind` is its key in `SOURCES`."""

    def __init__(self, kind: str, location: Location, options: SourceOptions):
        self.kind, self.location, self.options = kind, location, options

    @property
    def uri(self) -> str:
        """The address, as given."""
        return self.location.uri

    @property
    def is_packed(self) -> bool:
        """Whether the images are inside archives or tables, not separate files."""
        return SOURCES[self.kind].is_packed

    @cached_property
    def samples(self) -> Samples:
        """The images, and what the source states about them; what it leaves out is logged."""
        samples = SOURCES[self.kind].read(self.location, self.options)
        if samples.excluded:
            counts = [f"{count} {reason}" for reason, count in sorted(samples.excluded.items())]
            inform(logger, DataMessage.FILES_IGNORED, source=self.uri, ignored=counts)
        return expand_frames(samples, self.options.frames) if self.options.frames else samples

    def stream_files(self) -> tuple[list[str], int | None]:
        """Returns the files that can be streamed, and the number of images if it is known without reading them."""
        list_files = SOURCES[self.kind].stream_files
        return list_files(self.location) if list_files else ([], None)


def open_source(uri: str, options: SourceOptions | None = None) -> Source:
    """Opens a folder, manifest, benchmark, archive, table, saved dataset (local or remote) or Hub dataset.

    Raises:
        UsageError: If it does not exist, cannot be reached, or is of no such kind.
    """
    location, options = Location(uri), options or SourceOptions()
    for kind, entry in reversed(SOURCES.items()):
        if entry.matches(location, options):
            return Source(kind, location, options)
    raise UsageError(DataMessage.NO_DATA_AT_URL if location.is_remote else DataMessage.NOT_A_DATA_SOURCE, source=uri)


def describe_sources() -> str:
    """Returns the descriptions of all kinds of sources, for help texts."""
    return "; ".join(entry.description for entry in SOURCES.values())
