"""Reads and writes the JSON files of run records: the fields of `RunRecord`, and `schema_version`."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import msgspec

from ..errors import UsageError, summarize_exception
from ..evaluation.metrics import headline_metric_names
from ..files.atomic import write_json
from .messages import RunMessage
from .record import ALL_RESULTS, RUN_STARTED, SCHEMA_VERSION, RunRecord, Scores


def write_record(record: RunRecord, folder: Path) -> None:
    """Writes the record of a completed run, and removes the record of the started run."""
    write_json(folder / record.file_name, record_to_dict(record))
    (folder / RUN_STARTED).unlink(missing_ok=True)


def write_started_record(record: RunRecord, folder: Path) -> None:
    """Writes the record of a started run, which is read when the run resumes."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RUN_STARTED, record_to_dict(record))


def read_record(folder: str | Path, file_name: str = ALL_RESULTS) -> RunRecord:
    """Reads the record of a run.

    Raises:
        UsageError: If the record is missing, damaged, or was written by another program.
    """
    path = Path(folder) / file_name
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(RunMessage.RECORD_MISSING, path=folder, file=file_name) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(RunMessage.RECORD_DAMAGED, path=path, error=summarize_exception(error)) from None
    if isinstance(values, dict) and (schema_version := values.get("schema_version")) != SCHEMA_VERSION:
        code = RunMessage.RECORD_WITHOUT_VERSION if schema_version is None else RunMessage.RECORD_OF_OTHER_VERSION
        raise UsageError(code, path=path, version=schema_version, supported=SCHEMA_VERSION)
    try:
        return msgspec.convert(values, RunRecord)
    except msgspec.ValidationError as error:
        raise UsageError(RunMessage.RECORD_INVALID, path=path, error=summarize_exception(error)) from None


def find_run_record(folder: Path) -> RunRecord | None:
    """Reads the record of the started or completed run in a folder; None if no record is readable."""
    for name in (RUN_STARTED, ALL_RESULTS):
        if (folder / name).is_file():
            try:
                return read_record(folder, name)
            except UsageError:
                return None
    return None


def record_to_dict(record: RunRecord) -> dict[str, Any]:
    """Returns the contents of the JSON file of a record; a headline metric that was not computed is null."""
    metrics: Scores = dict.fromkeys(headline_metric_names(record.ordered))
    values = {"schema_version": SCHEMA_VERSION} | dataclasses.asdict(record)
    return values | {"scores": {split: metrics | scores for split, scores in record.scores.items()}}
