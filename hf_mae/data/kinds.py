"""What a source of images is: archives, tables that `datasets` wrote or reads, or files; here or behind a URL."""

import os
from pathlib import Path

from ..errors import UsageError, first_line
from ..files.members import ARCHIVE_SUFFIXES, TABLE_SUFFIX, errors_of_remote, file_system, is_remote
from .files import walk_images
from .shards import INDEX, is_sharded

ARCHIVES = "archives"
SAVED = "saved"  # by `save_to_disk`
TABLES = "tables"  # a parquet file, or those behind a URL
FOLDER = "folder"  # of parquet or Arrow files, that `datasets` reads
FILES = "files"  # or a Hub id, or nothing
SAVED_NAMES = ("dataset_dict.json", "state.json")
IN_FOLDERS = ("*.parquet", "*/*.parquet", "*.arrow", "*/*.arrow")


def kind_of(source: str) -> str:
    """One of the kinds above.

    Raises:
        UsageError: a URL cannot be reached.
    """
    if is_remote(source):
        return _kind_there(source)
    return ARCHIVES if is_sharded(source) else _kind_of_table(Path(source))


def is_data_set(source: str) -> bool:
    """Whether it is what `datasets` wrote or reads, whatever else lies there."""
    kind = _kind_there(source) if is_remote(source) else _kind_of_table(Path(source))
    return kind in (SAVED, TABLES, FOLDER)


def holds_images(source: str) -> bool:
    """Whether images lie within it (archives, parquet, a saved data set; a folder or URL of these), not in files."""
    if is_sharded(source):
        return True
    return is_data_set(source) and not (os.path.isdir(source) and walk_images(Path(source)).images)


def _kind_of_table(path: Path) -> str:
    if path.is_file():
        return TABLES if path.suffix.lower() == TABLE_SUFFIX else FILES
    if any((path / name).is_file() for name in SAVED_NAMES):
        return SAVED
    return FOLDER if any(next(path.glob(pattern), None) for pattern in IN_FOLDERS) else FILES


def _kind_there(url: str) -> str:
    """Of a URL; archives, where nothing is understood. What has our index beside it need not be listed (many a server
    does not list)."""
    try:
        with errors_of_remote():
            system, path = file_system(url)
            if path.lower().endswith(ARCHIVE_SUFFIXES) or system.exists(file_system(f"{url.rstrip('/')}/{INDEX}")[1]):
                return ARCHIVES
            names = [path] if system.isfile(path) else system.glob(path) if "*" in path else system.find(path)
    except OSError as error:
        raise UsageError(f"{url} cannot be reached ({first_line(error)}).") from None
    own = {os.path.basename(name).lower() for name in names}
    if any(name.endswith(ARCHIVE_SUFFIXES) for name in own):
        return ARCHIVES
    if own & set(SAVED_NAMES):
        return SAVED
    return TABLES if any(name.endswith(TABLE_SUFFIX) for name in own) else ARCHIVES
