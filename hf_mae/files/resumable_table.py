"""Append-only tables of predictions that can be resumed after an interruption, and merged from shards."""

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ..errors import UsageError
from .atomic import atomic_write_file, csv_line, write_json, write_text
from .locks import wait_for_lock
from .messages import FileMessage


@contextmanager
def open_resumable_table(
    path: str | Path, header: list[str] | None, settings: dict[str, Any], resume: bool, overwrite: bool
) -> Iterator[tuple[TextIO, set[str]]]:
    """Yields a file to append rows to, and the `file_name`s of its existing rows.

    Rows are written to `FILE.partial`, and the settings to `FILE.partial.json`. When the block ends without an
    exception, `FILE.partial` replaces FILE. Rows with an error are removed on resumption, so that they are repeated.

    Args:
        header: header of a CSV file, whose first column is `file_name`; None: JSON lines.
        settings: settings that must be the same for all rows.
        resume: continue with `FILE.partial`, or with FILE.
        overwrite: start from the beginning.

    Raises:
        UsageError: If the file exists and neither flag is set, or its rows were written with different settings.
    """
    path = Path(path)
    partial, record = (path.with_name(f"{path.name}.partial{suffix}") for suffix in ("", ".json"))
    if path.is_dir():
        raise UsageError(FileMessage.IS_A_FOLDER, path=path)
    if path.exists() and not resume and not overwrite:
        raise UsageError(FileMessage.TABLE_EXISTS, path=path)
    if partial.exists() and not resume and not overwrite:
        raise UsageError(FileMessage.TABLE_INCOMPLETE, path=partial)
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    if not resume:
        partial.unlink(missing_ok=True)
    elif partial.exists() and record.exists() and (before := json.loads(record.read_text())) != settings:
        differences = [
            f"{name}: {before.get(name)} before, {settings.get(name)} now"
            for name in {**before, **settings}
            if before.get(name) != settings.get(name)
        ]
        raise UsageError(FileMessage.TABLE_SETTINGS_DIFFER, path=partial, differences=differences)
    elif not partial.exists() and path.exists():
        shutil.copy(path, partial)
    rows, done = _read_complete_rows(partial, header) if partial.exists() else ([], set())
    write_json(record, settings)
    write_text(partial, "".join(rows) or (csv_line(header) if header else ""))
    with open(partial, "a", newline="", encoding="utf-8") as file:
        try:
            yield file, done
        except KeyboardInterrupt as interrupt:
            reason = str(interrupt) or "interrupted"
            raise type(interrupt)(FileMessage.TABLE_INTERRUPTED.render(reason=reason, path=partial)) from None
    partial.replace(path)
    record.unlink()


def _read_complete_rows(partial: Path, header: list[str] | None) -> tuple[list[str], set[str]]:
    """Returns the complete rows without an error, and their names.

    A name may contain any line break: CSV rows are parsed by the csv module, and JSON lines end only with a line feed.
    """
    content = partial.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:  # the process was killed within a character
        text = content[: error.start].decode("utf-8")
    if header is None:
        return _parse_complete_lines(text, partial)
    rows = list(csv.reader(io.StringIO(text, newline="")))
    if not text.endswith("\r\n"):  # the last row is incomplete
        rows = rows[:-1]
    if rows and rows[0] != header:
        raise UsageError(FileMessage.TABLE_COLUMNS_DIFFER, path=partial)
    valid = [cells for cells in rows[1:] if len(cells) == len(header) and not cells[-1]]
    return [csv_line(cells) for cells in [header, *valid]], {cells[0] for cells in valid}


def _parse_complete_lines(text: str, partial: Path) -> tuple[list[str], set[str]]:
    lines, done = [], set()
    for line in text.split("\n")[:-1]:
        try:
            row = json.loads(line)
            name, failed = row["file_name"], "error" in row
        except (ValueError, KeyError, TypeError):
            raise UsageError(FileMessage.TABLE_ROW_INVALID, path=partial) from None
        if not failed:
            lines.append(f"{line}\n")
            done.add(name)
    return lines, done


def table_shard_paths(path: str | Path, num_shards: int, settings: dict[str, Any]) -> list[str]:
    """Returns the path of each shard of a table; it contains a hash of the settings, so that only equal ones merge."""
    path = Path(path)
    key = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:8]
    names = [f"{path.stem}.{key}.shard-{number}-of-{num_shards}{path.suffix}" for number in range(1, num_shards + 1)]
    return [str(path.with_name(name)) for name in names]


def merge_table_shards(shards: Sequence[str | Path], path: str | Path, header_rows: int) -> bool:
    """Merges the shards of a table if all of them are complete, and removes them. The last process merges.

    Args:
        header_rows: number of header lines of each shard; the table contains them once.

    Returns:
        Whether this call merged the shards.
    """
    path = Path(path)
    lock = path.with_name(f".{path.name}.lock")
    with wait_for_lock(lock):
        if not all(os.path.isfile(shard) for shard in shards):
            return False
        with atomic_write_file(path) as temporary, open(temporary, "wb") as table:
            for number, shard in enumerate(shards):
                with open(shard, "rb") as file:
                    for _ in range(header_rows if number else 0):
                        file.readline()
                    shutil.copyfileobj(file, table)
        for shard in shards:
            os.unlink(shard)
        lock.unlink(missing_ok=True)
    return True
