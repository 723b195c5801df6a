"""Resolves `--exclude`: files, folders, globs and lists of images to exclude."""

import glob
import os
from pathlib import Path

from ...errors import UsageError
from ...files.atomic import read_text
from ..messages import DataMessage
from ..sources.image_files import IMAGE_SUFFIXES, list_image_files
from ..sources.tables import TABLE_SUFFIXES, read_table

_NAME_COLUMNS = ("file_name", "filename", "file", "file_stem", "stem", "image", "path")
_SPLIT_COLUMNS = ("split", "split_index", "fold")


def file_stem(name: str) -> str:
    """Returns the file name without folder and suffix, which identifies an image."""
    return Path(name.replace("\\", "/")).stem


def resolve_exclude_patterns(patterns: list[str]) -> tuple[dict[str, str], list[str]]:
    """Resolves the values of `--exclude`.

    Args:
        patterns: image files, folders and globs; lists (.csv, .jsonl, .txt) of file names. `LIST:SPLIT` selects the
            rows of one split (`2_fold_split.csv:1`, `manifest.csv:test`).

    Returns:
        Stem -> the pattern that matched it, and the image files that exist.

    Raises:
        UsageError: If a pattern matches nothing.
    """
    stems: dict[str, str] = {}
    files: list[str] = []
    for pattern in patterns:
        has_split = ":" in pattern and not os.path.exists(pattern)
        path, _, split = pattern.rpartition(":") if has_split else (pattern, "", "")
        if os.path.isfile(path) and path.lower().endswith((*TABLE_SUFFIXES, ".txt")):
            names = read_file_names(Path(path), split or None)
            candidates = (os.path.join(os.path.dirname(path), name) for name in names)
            paths = [file for file in candidates if file.lower().endswith(IMAGE_SUFFIXES) and os.path.isfile(file)]
        else:
            if os.path.isdir(pattern):
                paths = list_image_files(pattern)
            else:
                paths = [pattern] if os.path.isfile(pattern) else sorted(filter(os.path.isfile, glob.glob(pattern)))
            names = paths
        if not names:
            raise UsageError(DataMessage.EXCLUDE_MATCHES_NOTHING, pattern=pattern)
        stems.update({file_stem(name): pattern for name in names})
        files += paths
    return stems, list(dict.fromkeys(files))


def read_file_names(path: Path, split: str | None) -> list[str]:
    """Reads file names: the lines of a .txt file, or a column of a .csv (commas or semicolons) or .jsonl file."""
    if path.suffix.lower() == ".txt":
        rows = [{"file_name": line.strip()} for line in read_text(path).splitlines() if line.strip()]
    else:
        rows = read_table(path)
    rows = [{str(key).strip().lower().replace("-", "_"): value for key, value in row.items()} for row in rows]
    columns = list(rows[0]) if rows else []
    name_column = next((name for name in _NAME_COLUMNS if name in columns), None)
    if name_column is None:
        raise UsageError(DataMessage.LIST_WITHOUT_FILE_NAMES, path=path, columns=_NAME_COLUMNS)
    if split is not None:
        split_column = next((name for name in _SPLIT_COLUMNS if name in columns), None)
        if split_column is None:
            raise UsageError(DataMessage.LIST_WITHOUT_SPLITS, path=path, split=split)
        values = sorted({str(row[split_column]) for row in rows})
        if split not in values:
            raise UsageError(DataMessage.LIST_UNKNOWN_SPLIT, path=path, split=split, column=split_column, values=values)
        rows = [row for row in rows if str(row[split_column]) == split]
    return [str(row[name_column]) for row in rows if row[name_column]]
