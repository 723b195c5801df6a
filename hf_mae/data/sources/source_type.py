"""Detects the type of an image source: archives, tables or files, local or remote."""

import os
from pathlib import Path

from ...errors import UsageError, first_error_line
from ...files.archive_members import ARCHIVE_SUFFIXES, TABLE_SUFFIX, convert_remote_errors, file_system, is_remote
from ..messages import DataMessage
from .archive_index import INDEX_FILE, is_archive_source
from .image_files import walk_images

ARCHIVE = "archives"
SAVED_DATASET = "saved"  # by `save_to_disk`
PARQUET = "tables"  # a parquet file, or the parquet files of a URL
TABLE_FOLDER = "folder"  # of parquet or Arrow files, which `datasets` reads
FILES = "files"  # or a Hub id, or a missing path
SAVED_DATASET_FILES = ("dataset_dict.json", "state.json")
TABLE_GLOBS = ("*.parquet", "*/*.parquet", "*.arrow", "*/*.arrow")


def detect_source_type(source: str) -> str:
    """Returns one of the constants above.

    Raises:
        UsageError: If a URL cannot be reached.
    """
    if is_remote(source):
        return _detect_remote_type(source)
    return ARCHIVE if is_archive_source(source) else _detect_local_type(Path(source))


def is_datasets_source(source: str) -> bool:
    """Whether `datasets` wrote or can read the source; other files in it are ignored."""
    source_type = _detect_remote_type(source) if is_remote(source) else _detect_local_type(Path(source))
    return source_type in (SAVED_DATASET, PARQUET, TABLE_FOLDER)


def is_packed_source(source: str) -> bool:
    """Whether the images are inside archives or tables (or a folder or URL of these), not separate files."""
    if is_archive_source(source):
        return True
    return is_datasets_source(source) and not (os.path.isdir(source) and walk_images(Path(source)).images)


def _detect_local_type(path: Path) -> str:
    if path.is_file():
        return PARQUET if path.suffix.lower() == TABLE_SUFFIX else FILES
    if any((path / name).is_file() for name in SAVED_DATASET_FILES):
        return SAVED_DATASET
    return TABLE_FOLDER if any(next(path.glob(pattern), None) for pattern in TABLE_GLOBS) else FILES


def _detect_remote_type(url: str) -> str:
    """Returns the type of a URL; archives by default. If our index exists, the folder is not listed (many servers
    cannot)."""
    try:
        with convert_remote_errors():
            system, path = file_system(url)
            if path.lower().endswith(ARCHIVE_SUFFIXES) or system.exists(
                file_system(f"{url.rstrip('/')}/{INDEX_FILE}")[1]
            ):
                return ARCHIVE
            paths = [path] if system.isfile(path) else system.glob(path) if "*" in path else system.find(path)
    except OSError as error:
        raise UsageError(DataMessage.SOURCE_UNREACHABLE, source=url, reason=first_error_line(error)) from None
    names = {os.path.basename(path).lower() for path in paths}
    if any(name.endswith(ARCHIVE_SUFFIXES) for name in names):
        return ARCHIVE
    if names & set(SAVED_DATASET_FILES):
        return SAVED_DATASET
    return PARQUET if any(name.endswith(TABLE_SUFFIX) for name in names) else ARCHIVE
