"""Predictions of a run on a split: `predictions_<split>.parquet` with logits, and `predictions_<split>.csv` for people.

The parquet file is read if it exists. A CSV file may come from any program: see `read_prediction_csv`.
"""

import csv
import hashlib
import io
import json
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..data.sources.tables import check_class_names, parse_label
from ..errors import UsageError, first_error_line, warn
from ..evaluation.calibration import IDENTITY_TEMPERATURE, Temperature
from ..evaluation.metrics import Floats, softmax
from ..evaluation.prediction_table import Predictions
from ..files.atomic import atomic_write_file, read_text, write_csv
from .messages import RunMessage

logger = logging.getLogger(__name__)

LOGIT_PREFIX, SCORE_PREFIX = "logit:", "score:"  # of the columns of each class
REQUIRED_COLUMNS = ("file_name", "label", "prediction")
SUM_TOLERANCE = 1e-3  # of the scores of an image
METADATA_KEY = b"hf_mae"  # in the schema of the parquet file: classes, temperature, hash of the CSV file
SCHEMA_VERSION = 1
PARQUET_MAGIC, ZIP_MAGIC = b"PAR1", b"PK\x03\x04"
FILE_PREFIX = "predictions_"
PREDICTION_FILES = f"{FILE_PREFIX}{{split}}.parquet", f"{FILE_PREFIX}{{split}}.csv"  # the first that exists is read


@dataclass(frozen=True)
class PredictionTable:
    """Predictions of one model on one split.

    Args:
        class_names: by class id.
        labels: class ids (images,).
        predicted: class ids (images,).
        groups: patient or video of each image (images,); None: unknown.
        class_scores: scores (images, classes) after temperature scaling; None: unknown.
        logits: (images, classes), as the model gave them, or the logarithm of the scores of a CSV file; None: unknown.
    """

    file_names: list[str]
    class_names: list[str]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    groups: NDArray[Any] | None = None
    class_scores: Floats | None = None
    logits: NDArray[Any] | None = None


def write_predictions(
    folder: Path,
    split: str,
    file_names: list[str],
    logits: np.ndarray,
    labels: np.ndarray,
    names: list[str],
    groups: list[str] | None = None,
    temperature: Temperature = IDENTITY_TEMPERATURE,
) -> None:
    """Writes the predictions of a split: a parquet file with logits, and a CSV file with scores.

    Scores in the CSV file have nine significant digits.

    Args:
        logits: (images, classes), before temperature scaling.
        labels: class ids (images,).
        groups: patient or video of each image.
        temperature: divisor of the logits for predicted classes and scores.
    """
    scaled = temperature.scale_logits(logits)
    predicted, scores = scaled.argmax(-1), softmax(scaled)
    parquet_path, csv_path = (folder / name.format(split=split) for name in PREDICTION_FILES)
    header = ["file_name", *(["group"] if groups else []), "label", "prediction", "score"]
    first_cells = zip(file_names, groups) if groups else zip(file_names)
    rows = (
        [*first, names[label], names[best], f"{row[best]:.9g}", *(f"{score:.9g}" for score in row)]
        for first, label, best, row in zip(first_cells, labels, predicted, scores, strict=True)
    )
    write_csv(csv_path, [*header, *(f"{SCORE_PREFIX}{name}" for name in names)], rows)
    columns = {"file_name": pa.array(file_names, pa.string())}
    columns |= {"group": pa.array(groups, pa.string())} if groups else {}
    for column, ids in (("label", labels), ("prediction", predicted)):
        columns[column] = pa.DictionaryArray.from_arrays(pa.array(ids, pa.int32()), pa.array(names))
    columns |= {f"{LOGIT_PREFIX}{name}": pa.array(logits[:, index]) for index, name in enumerate(names)}
    facts = {"schema_version": SCHEMA_VERSION, "classes": names, "temperature": temperature.to_dict(names)}
    facts |= {"csv_sha256": hash_bytes(csv_path.read_bytes())}
    table = pa.table(columns).replace_schema_metadata({METADATA_KEY: json.dumps(facts)})
    with atomic_write_file(parquet_path) as temporary:
        pq.write_table(table, temporary)


def find_predictions(folder: str | Path, split: str) -> Path | None:
    """Finds the file with the predictions of a split in the folder of a run; None if it is missing."""
    paths = (Path(folder) / name.format(split=split) for name in PREDICTION_FILES)
    return next((path for path in paths if path.is_file()), None)


def list_predicted_splits(folder: Path) -> list[str]:
    """Lists the splits whose predictions a folder contains."""
    paths = [path for name in PREDICTION_FILES for path in folder.glob(name.format(split="*"))]
    return sorted({path.stem.removeprefix(FILE_PREFIX) for path in paths})


def read_prediction_table(folder: str | Path, split: str, need_scores: bool = False) -> PredictionTable:
    """Reads the predictions of a split from the folder of a run.

    Args:
        need_scores: whether the scores of each class are required.

    Raises:
        UsageError: If the predictions or required scores are missing, or the file is damaged.
    """
    path = find_predictions(folder, split)
    if path is None:
        raise UsageError(RunMessage.PREDICTIONS_MISSING, path=folder, split=split)
    table = read_prediction_file(path)
    if need_scores and table.class_scores is None:
        raise UsageError(RunMessage.SCORE_COLUMNS_MISSING, path=path)
    return table


def read_prediction_file(path: Path) -> PredictionTable:
    """Reads the parquet file of a run, or a CSV or parquet file of any program.

    Raises:
        UsageError: If the file is damaged, or has not the columns of `read_prediction_csv`.
    """
    with open(path, "rb") as file:
        start = file.read(4)
    if start == PARQUET_MAGIC or path.suffix == ".parquet":
        return _read_parquet(path)
    if start == ZIP_MAGIC or start[:1] in (b"{", b"["):  # Excel, NumPy, JSON
        raise UsageError(RunMessage.PREDICTION_FORMAT_UNKNOWN, path=path)
    return read_prediction_csv(path)


def read_predictions(folders: list[Path], split: str) -> tuple[Predictions, list[str], list[str]]:
    """Reads the predictions of several runs on the same images; returns them with file and class names.

    Args:
        folders: output folders of runs that differ in their seed only.

    Raises:
        UsageError: If predictions are missing or invalid, or the runs were not evaluated on the same images.
    """
    tables = [read_prediction_table(folder, split) for folder in folders]
    first = tables[0]
    for folder, table in zip(folders, tables):
        if not (
            (table.class_names, table.file_names) == (first.class_names, first.file_names)
            and np.array_equal(table.labels, first.labels)
        ):
            raise UsageError(RunMessage.PREDICTIONS_OF_OTHER_IMAGES, path=folder, first=folders[0])
    return stack_tables(tables), first.file_names, first.class_names


def stack_tables(tables: list[PredictionTable]) -> Predictions:
    """Combines the predictions of several models on the same images."""
    first, scores = tables[0], [table.class_scores for table in tables if table.class_scores is not None]
    return Predictions(
        first.labels,
        np.stack([table.predicted for table in tables]),
        len(first.class_names),
        first.groups,
        np.stack(scores) if len(scores) == len(tables) else None,
    )


def _read_parquet(path: Path) -> PredictionTable:
    try:
        table = pq.read_table(path)
        if METADATA_KEY not in (table.schema.metadata or {}):
            return _make_table(table.select(_check_columns(table.column_names, path)), path)
        facts = json.loads(table.schema.metadata[METADATA_KEY])
        names = facts["classes"]
        logits = np.stack([table[f"{LOGIT_PREFIX}{name}"].to_numpy() for name in names], axis=-1)
        labels, predicted = (_find_class_ids(table[column], names) for column in ("label", "prediction"))
        scores = softmax(Temperature.from_dict(facts["temperature"], names).scale_logits(logits))
        if not (is_finite := np.isfinite(scores).all(-1)).all():
            raise ValueError(f"{(~is_finite).sum()} rows have no finite scores")
        file_names, groups = _read_names(table, path)
        csv_hash = facts["csv_sha256"]
    except UsageError:
        raise
    except Exception as error:  # a truncated or edited file raises many types
        raise UsageError(RunMessage.PREDICTIONS_DAMAGED, path=path, error=first_error_line(error)) from None
    csv_path = path.with_suffix(".csv")
    if csv_path.is_file() and hash_bytes(csv_path.read_bytes()) != csv_hash:
        warn(logger, RunMessage.PREDICTIONS_CSV_CHANGED, path=csv_path, used=path.name)
    return PredictionTable(file_names, names, labels, predicted, groups, scores, logits)


def _read_names(table: Any, path: Path) -> tuple[list[str], NDArray[Any] | None]:
    """Returns the file names, and the groups if there are any."""
    file_names = table["file_name"].to_pylist()
    if any(not (name or "").strip() for name in file_names):
        raise UsageError(RunMessage.PREDICTION_FILE_NAME_MISSING, path=path)
    if repeated := [name for name, count in Counter(file_names).items() if count > 1]:
        raise UsageError(RunMessage.PREDICTIONS_REPEAT_FILE_NAME, path=path, name=repeated[0])
    if "group" not in table.column_names:
        return file_names, None
    groups = table["group"].to_pylist()
    if missing := [name for name, group in zip(file_names, groups) if group in (None, "")]:
        raise UsageError(RunMessage.PREDICTION_GROUP_MISSING, path=path, name=missing[0])
    return file_names, np.array(groups)


def _find_class_ids(column: Any, names: list[str]) -> NDArray[np.int64]:
    found = pc.index_in(column.cast(pa.string()), pa.array(names))
    if found.null_count:
        raise ValueError(f"{found.null_count} rows have no class")
    ids: NDArray[np.int64] = found.to_numpy().astype(np.int64)
    return ids


def hash_bytes(content: bytes) -> str:
    """Returns the SHA-256 of the CSV file, which the parquet file contains."""
    return hashlib.sha256(content).hexdigest()


# Tables of any program


def read_prediction_csv(path: Path) -> PredictionTable:
    """Reads a CSV file (commas, semicolons or tabs) of any program; see `_make_table`.

    Raises:
        UsageError: If the file is unreadable or its contents are invalid.
    """
    return _make_table(_parse_csv(path, read_text(path)), path)


def _make_table(table: Any, path: Path) -> PredictionTable:
    """Makes the predictions of an Arrow table, with text or with numbers.

    Columns: `file_name`, `label` and `prediction`; optionally `group`, `score` (of the predicted class) and one column
    `score:CLASS` per class. Without the latter, the classes are all labels and predictions.

    Raises:
        UsageError: If the table is empty, if a required cell is missing, if a file name is repeated, if class names
            differ only in case, if a class has no score column, or if scores are not probabilities.
    """
    if not table.num_rows:
        raise UsageError(RunMessage.PREDICTION_TABLE_EMPTY, path=path)
    text_columns = [name for name in (*REQUIRED_COLUMNS, "group") if name in table.column_names]
    for name in text_columns:
        text = pc.fill_null(table[name].cast(pa.string()), "")
        table = table.set_column(table.column_names.index(name), name, text)
    score_columns = [column for column in table.column_names if column.startswith(SCORE_PREFIX)]
    file_names, groups = _read_names(table, path)
    names = [parse_label(column.removeprefix(SCORE_PREFIX), f"{path}, {column}") for column in score_columns]
    labels, predicted = (_parse_classes(table[column], f"{path}, {column}") for column in ("label", "prediction"))
    known = names or sorted({*labels, *predicted}, key=natural_order)
    check_class_names(known, str(path))
    if unknown := sorted({*labels, *predicted} - set(known)):
        raise UsageError(RunMessage.SCORES_OF_CLASS_MISSING, path=path, name=unknown[0], known=known)
    ids = {name: index for index, name in enumerate(known)}
    scores = _parse_scores(table, score_columns, file_names, path) if score_columns else None
    with np.errstate(divide="ignore"):
        logits = None if scores is None else np.log(scores)
    label_ids, predicted_ids = (np.array([ids[name] for name in classes]) for classes in (labels, predicted))
    return PredictionTable(file_names, known, label_ids, predicted_ids, groups, scores, logits)


def _parse_csv(path: Path, text: str) -> Any:
    """Parses a CSV file as text columns; checks its header."""
    if not text.strip():
        raise UsageError(RunMessage.PREDICTION_TABLE_EMPTY, path=path)
    header, delimiter = _read_header(text)
    _check_columns(header, path)
    try:
        return pa_csv.read_csv(
            pa.BufferReader(text.encode()),
            pa_csv.ReadOptions(column_names=header, skip_rows_after_names=1),
            pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            pa_csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        raise UsageError(RunMessage.PREDICTION_ROWS_UNREADABLE, path=path, error=first_error_line(error)) from None


def _check_columns(header: list[str], path: Path) -> list[str]:
    """Raises UsageError if a required column is missing or a column is repeated; returns the columns that are used."""
    if missing := [name for name in REQUIRED_COLUMNS if name not in header]:
        raise UsageError(RunMessage.PREDICTION_COLUMNS_MISSING, path=path, columns=missing)
    used = [name for name in header if name in (*REQUIRED_COLUMNS, "group") or name.startswith(SCORE_PREFIX)]
    if repeated := [name for name, count in Counter(used).items() if count > 1]:
        raise UsageError(RunMessage.PREDICTION_COLUMN_REPEATED, path=path, column=repeated[0])
    return used


def _read_header(text: str) -> tuple[list[str], str]:
    """Returns the column names and the separator: that with which the header has the most known columns."""
    candidates = []
    for delimiter in ",;\t":
        header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        candidates.append(([name.strip() for name in header], delimiter))
    return max(candidates, key=lambda candidate: len({*candidate[0]} & {*REQUIRED_COLUMNS}))


def _parse_classes(column: Any, location: str) -> list[str]:
    """Returns the class name of each row; each different cell is parsed once."""
    encoded = column.combine_chunks().dictionary_encode()
    names = [parse_label(cell, location) for cell in encoded.dictionary.to_pylist()]
    return [names[index] for index in encoded.indices.to_pylist()]


def natural_order(name: str) -> tuple[bool, int, str]:
    """Sorts integers by value, before other names."""
    return (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)


def _parse_scores(table: Any, columns: list[str], file_names: list[str], path: Path) -> Floats:
    """Parses scores (images, classes), normalized to a sum of 1, because files have a limited number of digits."""
    scores = np.empty((table.num_rows, len(columns)))
    for index, column in enumerate(columns):
        try:
            is_text = pa.types.is_string(table[column].type)
            cells = pc.utf8_trim_whitespace(table[column]) if is_text else table[column]
            scores[:, index] = pc.cast(cells, pa.float64()).to_numpy()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            message = RunMessage.PREDICTION_SCORE_NOT_A_NUMBER
            raise UsageError(message, path=path, column=column, error=first_error_line(error)) from None
    total = scores.sum(-1, keepdims=True)
    tolerance = max(SUM_TOLERANCE, len(columns) / 2 * 10.0 ** -_count_digits(scores))
    is_valid = np.isfinite(scores).all(-1) & (scores >= 0).all(-1) & (abs(total[:, 0] - 1) <= tolerance)
    if len(invalid := np.flatnonzero(~is_valid)):
        name, first_total = file_names[invalid[0]], f"{total[invalid[0], 0]:.6g}"
        raise UsageError(RunMessage.SCORES_INVALID, path=path, name=name, total=first_total)
    normalized: Floats = scores / total
    return normalized


def _count_digits(scores: Floats) -> int:
    """Number of decimals of rounded scores, from two; scores with one are taken as exact, like those with many."""
    rounded = (digits for digits in (1, 2, 3) if np.allclose(scores, np.round(scores, digits), rtol=0, atol=1e-9))
    return next((digits for digits in rounded if digits > 1), 9)
