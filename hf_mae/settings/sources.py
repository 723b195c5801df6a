"""`SOURCES`: the kinds of data sources. Help and docs list them, and `data.sources.source` imports their readers.

A kind is one module of `data.sources` and its entry here. Importing this module does not import `datasets`.
"""

from dataclasses import dataclass

from ..registry import Registry


@dataclass(frozen=True)
class SourceEntry:
    """A kind of data source.

    Args:
        name: name of the kind.
        description: noun phrase for help and docs.
        reader: its `data.sources.kinds.SourceKind`, as `MODULE:CONSTANT` in `data.sources`.
        labelled_only: it is not a source of images for pre-training.
    """

    name: str
    description: str
    reader: str
    labelled_only: bool = False


# The last kind that matches is used, so an added kind comes before those of the package.
SOURCES: Registry[SourceEntry] = Registry()
for entry in (
    SourceEntry("hub", "a Hub id", "table:HUB"),
    SourceEntry(
        "folder",
        "a folder with one folder of images per class, optionally below train/, validation/ and test/",
        "folder:FOLDER",
    ),
    SourceEntry("table", "a parquet or Arrow file (or a folder or URL of them)", "table:TABLES"),
    SourceEntry(
        "archive",
        "tar or zip archives (or a folder or URL of them): class folders, or WebDataset's layout",
        "archive:ARCHIVES",
    ),
    SourceEntry(
        "manifest",
        "a CSV, TSV or JSON Lines manifest with file_name, label and optionally split and group (or a folder with one)",
        "manifest:MANIFEST",
    ),
    SourceEntry("saved", "a dataset of datasets.save_to_disk", "table:SAVED"),
    SourceEntry("shards", "a folder or URL of shards of hf-mae shard", "archive:SHARDS"),
    SourceEntry(
        "benchmark",
        "the archive or the extracted folder of a benchmark (with --benchmark)",
        "benchmark:BENCHMARK",
        labelled_only=True,
    ),
):
    SOURCES.add(entry)


def describe_sources(labelled: bool = True) -> str:
    """Returns the descriptions of the kinds, for help texts."""
    return "; ".join(entry.description for entry in SOURCES.values() if labelled or not entry.labelled_only)
