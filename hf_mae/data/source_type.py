"""What a source of images is: archives, tables that `datasets` wrote or reads, or files; here or behind a URL."""

import os
from pathlib import Path

from ..errors import UsageError, first_error_line
from ..files.archive_members import ARCHIVE_SUFFIXES, TABLE_SUFFIX, convert_remote_errors, file_system, is_remote
from .archive_index import INDEX_FILE, is_archive_source
from .image_files import walk_images

ARCHIVE = "archives"
SAVED_DATASET = "saved"  # by `save_to_disk`
PARQUET = "tables"  # a parquet file, or those behind a URL
TABLE_FOLDER = "folder"  # of parquet or Arrow files, that `datasets` reads
FILES = "files"  # or a Hub id, or nothing
SAVED_DATASET_FILES = ("dataset_dict.json", "state.json")
TABLE_GLOBS = ("*.parquet", "*/*.parquet", "*.arrow", "*/*.arrow")


def detect_source_type(source: str) -> str:
    """One of the kinds above.

    Raises:
        UsageError: a URL cannot be reached.
    """
    if is_remote(source):
        return _detect_remote_type(source)
    return ARCHIVE if is_archive_source(source) else _detect_local_type(Path(source))


def is_datasets_source(source: str) -> bool:
    """Whether it is what `datasets` wrote or reads, whatever else lies there."""
    kind = _detect_remote_type(source) if is_remote(source) else _detect_local_type(Path(source))
    return kind in (SAVED_DATASET, PARQUET, TABLE_FOLDER)


def is_packed_source(source: str) -> bool:
    """Whether images lie within it (archives, parquet, a saved data set; a folder or URL of these), not in files."""
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
    """Of a URL; archives, where nothing is understood. What has our index beside it need not be listed (many a server
    does not list)."""
    try:
        with convert_remote_errors():
            system, path = file_system(url)
            if path.lower().endswith(ARCHIVE_SUFFIXES) or system.exists(
                file_system(f"{url.rstrip('/')}/{INDEX_FILE}")[1]
            ):
                return ARCHIVE
            names = [path] if system.isfile(path) else system.glob(path) if "*" in path else system.find(path)
    except OSError as error:
        raise UsageError(f"{url} cannot be reached ({first_error_line(error)}).") from None
    own = {os.path.basename(name).lower() for name in names}
    if any(name.endswith(ARCHIVE_SUFFIXES) for name in own):
        return ARCHIVE
    if own & set(SAVED_DATASET_FILES):
        return SAVED_DATASET
    return PARQUET if any(name.endswith(TABLE_SUFFIX) for name in own) else ARCHIVE
