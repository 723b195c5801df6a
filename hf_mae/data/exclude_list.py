"""Images that `--exclude` names: files, folders, globs and lists."""

import glob
import os
from pathlib import Path

from ..errors import UsageError
from ..files.text_io import read_text
from .image_files import IMAGE_SUFFIXES, list_image_files
from .tables import TABLE_SUFFIXES, read_table

_NAME_COLUMNS = ("file_name", "filename", "file", "file_stem", "stem", "image", "path")
_SPLIT_COLUMNS = ("split", "split_index", "fold")


def file_stem(name: str) -> str:
    """The file's name without folder and suffix, by which images are told."""
    return Path(name.replace("\\", "/")).stem


def resolve_exclude_patterns(patterns: list[str]) -> tuple[dict[str, str], list[str]]:
    """What `--exclude` names.

    Args:
        patterns: image files, folders and globs; lists (.csv, .jsonl, .txt) of file names, of which `LIST:SPLIT` takes the
            rows of one split (`2_fold_split.csv:1`, `manifest.csv:test`).

    Returns:
        Stem -> the word that names it, and the image files that there are.

    Raises:
        UsageError: a word that stands for nothing.
    """
    stems: dict[str, str] = {}
    files: list[str] = []
    for word in patterns:
        path, _, split = word.rpartition(":") if not os.path.exists(word) and ":" in word else (word, "", "")
        if os.path.isfile(path) and path.lower().endswith((*TABLE_SUFFIXES, ".txt")):
            names = read_file_names(Path(path), split or None)
            beside = (os.path.join(os.path.dirname(path), name) for name in names)
            found = [file for file in beside if file.lower().endswith(IMAGE_SUFFIXES) and os.path.isfile(file)]
        else:
            if os.path.isdir(word):
                found = list_image_files(word)
            else:
                found = [word] if os.path.isfile(word) else sorted(filter(os.path.isfile, glob.glob(word)))
            names = found
        if not names:
            raise UsageError(f"--exclude {word} names no image: it takes files, folders, globs and lists (LIST:SPLIT).")
        stems.update({file_stem(name): word for name in names})
        files += found
    return stems, list(dict.fromkeys(files))


def read_file_names(path: Path, split: str | None) -> list[str]:
    """The file names of a list: lines of a .txt, or a column of a .csv (commas or semicolons) or .jsonl."""
    if path.suffix.lower() == ".txt":
        rows = [{"file_name": line.strip()} for line in read_text(path).splitlines() if line.strip()]
    else:
        rows = read_table(path)
    rows = [{str(key).strip().lower().replace("-", "_"): value for key, value in row.items()} for row in rows]
    known = list(rows[0]) if rows else []
    column = next((name for name in _NAME_COLUMNS if name in known), None)
    if column is None:
        raise UsageError(f"{path} has no column of file names (one of {', '.join(_NAME_COLUMNS)}).")
    if split is not None:
        kind = next((name for name in _SPLIT_COLUMNS if name in known), "")
        values = sorted({str(row[kind]) for row in rows}) if kind else []
        if split not in values:
            there = f"its {kind} is one of {', '.join(values)}" if kind else "it has no column split"
            raise UsageError(f"{path} has no rows of {split}: {there}.")
        rows = [row for row in rows if str(row[kind]) == split]
    return [str(row[column]) for row in rows if row[column]]
