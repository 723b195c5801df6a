"""A table that grows row by row, keeps what it has when it is interrupted, and goes on from there."""

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


@contextmanager
def open_resumable_table(
    path: str | Path, header: list[str] | None, settings: dict[str, Any], resume: bool, overwrite: bool
) -> Iterator[tuple[TextIO, set[str]]]:
    """Yields a file to append rows to, and the `file_name`s that it has already.

    Rows go into `FILE.partial`, beside it `FILE.partial.json` with the settings; when the block ends without an error
    it takes the place of FILE. Rows with an error are taken out when it goes on: their files are tried again.

    Args:
        header: of a CSV, whose first column is `file_name`; None: JSON lines.
        settings: what all rows must have in common.
        resume: go on with `FILE.partial`, or with FILE.
        overwrite: start anew.

    Raises:
        UsageError: there is such a file, and neither is asked for; or its rows are of other settings.
    """
    path = Path(path)
    partial, record = (path.with_name(f"{path.name}.partial{suffix}") for suffix in ("", ".json"))
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file to write to.")
    if path.exists() and not resume and not overwrite:
        raise UsageError(f"{path} exists: pass --resume to predict what it lacks, --overwrite, or another name.")
    if partial.exists() and not resume and not overwrite:
        raise UsageError(f"{partial} holds an interrupted run's rows: pass --resume to go on, or --overwrite.")
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    if not resume:
        partial.unlink(missing_ok=True)
    elif partial.exists() and record.exists() and (before := json.loads(record.read_text())) != settings:
        differing = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
        other = ", ".join(f"{name} {before.get(name)} then, {settings.get(name)} now" for name in differing)
        raise UsageError(f"{partial} was begun with other settings ({other}): repeat those, or pass --overwrite.")
    elif not partial.exists() and path.exists():
        shutil.copy(path, partial)
    rows, done = _read_complete_rows(partial, header) if partial.exists() else ([], set())
    write_json(record, settings)
    write_text(partial, "".join(rows) or (csv_line(header) if header else ""))
    with open(partial, "a", newline="", encoding="utf-8") as file:
        try:
            yield file, done
        except KeyboardInterrupt as told:
            why = str(told) or "interrupted"
            raise type(told)(f"{why}: what is done is in {partial}; the same command and --resume go on") from None
    partial.replace(path)
    record.unlink()


def _read_complete_rows(partial: Path, header: list[str] | None) -> tuple[list[str], set[str]]:
    """The rows that were written to their end, but for those with an error, and their names.

    A name may hold line breaks of any kind: a CSV's rows are those of the csv module, and lines of JSON end with a line
    feed alone.
    """
    content = partial.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:  # a kill within a letter
        text = content[: error.start].decode("utf-8")
    if header is None:
        return _parse_complete_lines(text, partial)
    rows = list(csv.reader(io.StringIO(text, newline="")))
    if not text.endswith("\r\n"):  # the last one was being written
        rows = rows[:-1]
    if rows and rows[0] != header:
        raise UsageError(f"{partial} has other columns than this run's (--top_k?): pass --overwrite, or another name.")
    good = [cells for cells in rows[1:] if len(cells) == len(header) and not cells[-1]]
    return [csv_line(cells) for cells in [header, *good]], {cells[0] for cells in good}


def _parse_complete_lines(text: str, partial: Path) -> tuple[list[str], set[str]]:
    kept, done = [], set()
    for line in text.split("\n")[:-1]:
        try:
            row = json.loads(line)
            name, failed = row["file_name"], "error" in row
        except (ValueError, KeyError, TypeError):
            raise UsageError(
                f"{partial} has a line that is no row of predict: pass --overwrite, or another name."
            ) from None
        if not failed:
            kept.append(f"{line}\n")
            done.add(name)
    return kept, done


def table_shard_paths(path: str | Path, num_shards: int, settings: dict[str, Any]) -> list[str]:
    """Where each of several processes writes its rows of a table. Rows of other settings have other names, so that
    they never come together."""
    path = Path(path)
    key = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:8]
    names = [f"{path.stem}.{key}.part-{number}-of-{num_shards}{path.suffix}" for number in range(1, num_shards + 1)]
    return [str(path.with_name(name)) for name in names]


def merge_table_shards(shards: Sequence[str | Path], path: str | Path, header_rows: int) -> bool:
    """Puts the parts of a table together and takes them away, where all of them are whole; whoever writes the last one
    does.

    Args:
        header_rows: lines that each part begins with, and the table once.

    Returns:
        Whether it was done here and now.
    """
    path = Path(path)
    lock = path.with_name(f".{path.name}.lock")
    with wait_for_lock(lock):
        if not all(os.path.isfile(part) for part in shards):
            return False
        with atomic_write_file(path) as temporary, open(temporary, "wb") as table:
            for number, part in enumerate(shards):
                with open(part, "rb") as file:
                    for _ in range(header_rows if number else 0):
                        file.readline()
                    shutil.copyfileobj(file, table)
        for part in shards:
            os.unlink(part)
        lock.unlink(missing_ok=True)
    return True
