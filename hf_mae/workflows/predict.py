"""`predict`: top classes of images and video frames, in the given order, as CSV or JSONL."""

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TextIO, TypeAlias

from ..compat.launchers import read_launch
from ..data.sources.predict_inputs import Shard, estimate_total, find_input_paths, iter_inputs, iter_pixel_values
from ..errors import UsageError, warn
from ..files.atomic import csv_line
from ..files.messages import FileMessage
from ..files.resumable_table import merge_table_shards, open_resumable_table, table_shard_paths
from ..settings.evaluation import PredictionArguments
from ..settings.limits import count_usable_cores
from ..settings.parse import Settings
from .command import command
from .messages import WorkflowMessage

logger = logging.getLogger(__name__)

Column: TypeAlias = tuple[str, Callable[[dict[str, Any]], str]]  # name, and function row -> cell


@dataclass
class PredictionResult(Sequence[dict[str, Any]]):
    """Result of `predict`: the rows, or the file that has them.

    Args:
        total: number of rows written.
        num_existing: number of rows already in the output.
        errors: reasons for images that cannot be read.
        output: the requested file; None: the rows are in `rows`, or were written to `stream`.
        rows: one row per image, without an output: `file_name`, and `predictions` (`label` and `score` of each class,
            best first) or `error`.
        written_path: the file with the rows of this process: `output`, or its shard.
        num_shards: number of processes that share the images.
        is_merged: whether this process merged the shards, because all are complete.
    """

    total: int = 0
    num_existing: int = 0
    errors: list[str] = field(default_factory=list)
    output: str | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    written_path: str | None = None
    num_shards: int = 1
    is_merged: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def to_pandas(self) -> Any:
        """Returns the rows, or those of the file, as a pandas DataFrame with the columns of the CSV."""
        import pandas

        if self.output and not self.output.endswith(".jsonl"):
            columns = pandas.read_csv(self.output, nrows=0).columns
            numbers = {name: "" for name in columns if name.startswith("score_") or name == "ood_p_value"}
            return pandas.read_csv(self.output, keep_default_na=False, na_values=numbers)  # a class may be named NA
        rows = self.rows
        if self.output:
            with open(self.output, encoding="utf-8") as file:
                rows = [json.loads(line) for line in file]
        return pandas.DataFrame([_flatten_row(row) for row in rows])

    def _repr_html_(self) -> str:
        return str(self.to_pandas().to_html(index=False))


def _flatten_row(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a row with one entry per column of the CSV."""
    row = {"predictions": [], "error": ""} | row
    best = {f"{key}_{rank}": each[key] for rank, each in enumerate(row.pop("predictions"), 1) for key in each}
    return {"file_name": row.pop("file_name"), **best, **row}


@command("predict")
def predict(settings: Settings, stream: TextIO | None = None) -> PredictionResult:
    """Classifies images and video frames.

    Args:
        stream: receives the CSV if there is no `output`; None: the rows are in the result.
    """
    options = settings.options
    paths, shard = find_input_paths(options.images, include_videos=True), Shard(*options.get_shard())
    if shard.num_shards > 1 and os.path.exists(options.output) and not options.overwrite:
        raise UsageError(FileMessage.FILE_EXISTS, path=options.output)
    rows, columns, row_settings = _prepare_prediction(options, paths, shard)
    header = [name for name, _ in columns]
    result = PredictionResult(output=options.output)
    if not options.output:
        if stream is None:
            result.rows = list(_count_rows(rows(set()), result))
        else:
            stream.write(csv_line(header))
            _write_rows(rows(set()), stream, False, columns, result)
        return result
    as_jsonl = options.output.endswith(".jsonl")
    images = {"images": options.images, "fps": options.fps}
    shard_paths = (
        table_shard_paths(options.output, shard.num_shards, row_settings | images)
        if shard.num_shards > 1
        else [options.output]
    )
    result.written_path, result.num_shards = shard_paths[shard.index], shard.num_shards
    table = open_resumable_table(
        result.written_path, None if as_jsonl else header, row_settings, options.resume, options.overwrite
    )
    with table as (file, done):
        result.num_existing = len(done)
        _write_rows(rows(done), file, as_jsonl, columns, result)
    result.is_merged = shard.num_shards > 1 and merge_table_shards(shard_paths, options.output, 0 if as_jsonl else 1)
    return result


def _prepare_prediction(
    options: PredictionArguments, paths: list[str], shard: Shard
) -> tuple[Callable[[set[str]], Iterator[dict[str, Any]]], list[Column], dict[str, Any]]:
    """Returns a function (names of completed images -> rows), the CSV columns, and the settings of all rows."""
    import torch
    from tqdm.auto import tqdm

    from ..compat.torch import wait_for_peers
    from ..inference.prediction import predict_files
    from ..inference.tta import apply_tta
    from ..models.loading import class_names, load_classifier
    from ..runs.temperature import read_temperature

    launch = read_launch()
    if options.num_shards is None:
        wait_for_peers(launch)
    model, processor = load_classifier(str(options.model_name_or_path))
    names = class_names(model)
    temperature = read_temperature(options.temperature or "1", options.tta, names)
    uncertainty = _load_uncertainty(options, names)
    model.to(f"cuda:{launch.local_rank}" if torch.cuda.is_available() else "cpu")
    top_k = min(options.top_k, model.config.num_labels)
    total = estimate_total(paths, options.fps, shard)
    cores = count_usable_cores() // launch.local_num_processes

    def rows(done: set[str]) -> Iterator[dict[str, Any]]:
        with ExitStack() as stack:
            stack.enter_context(apply_tta(model, options.tta))
            items = iter_pixel_values(
                iter_inputs(paths, shard),
                processor,
                options.fps,
                options.preprocessing_num_workers or max(cores, 1),
                completed_names=done,
                lookahead=2 * options.batch_size,
            )
            predictions = predict_files(
                model,
                items,
                options.batch_size,
                top_k,
                temperature=temperature,
                bf16=options.bf16,
                uncertainty=uncertainty,
                level=options.prediction_sets,
                ood=options.ood,
            )
            count = max(total, len(done))
            yield from tqdm(
                predictions,
                total=count,
                initial=len(done),
                unit="image",
                desc="Predicting",
                delay=1,
                disable=True if shard.index else None,
            )

    settings = {"model": options.model_name_or_path, "top_k": top_k, "tta": options.tta, "bf16": options.bf16}
    settings |= {"prediction_sets": options.prediction_sets} if options.prediction_sets is not None else {}
    settings |= {"ood": True} if options.ood else {}
    return rows, _build_columns(options, top_k), settings | temperature.to_dict(names)


def _load_uncertainty(options: PredictionArguments, names: list[str]) -> Any:
    """Loads prediction sets and out-of-distribution detector, if the options need them."""
    if options.prediction_sets is None and not options.ood:
        return None
    from ..runs.uncertainty_io import read_uncertainty

    folder = options.uncertainty or str(options.model_name_or_path)
    uncertainty = read_uncertainty(folder, names, options.tta)
    if options.ood and uncertainty.ood is None:
        raise UsageError(WorkflowMessage.OOD_MISSING, folder=folder)
    if options.prediction_sets is not None and (
        uninformative := uncertainty.conformal_sets.uninformative_classes(options.prediction_sets)
    ):
        warn(logger, WorkflowMessage.SETS_UNINFORMATIVE, names=[names[index] for index in uninformative])
    return uncertainty


def _build_columns(options: PredictionArguments, top_k: int) -> list[Column]:
    """Builds the columns of the CSV."""

    def make_cell(rank: int, key: str) -> Callable[[dict[str, Any]], str]:
        def cell(row: dict[str, Any]) -> str:
            predictions = row.get("predictions", [])
            value = predictions[rank][key] if rank < len(predictions) else ""
            return f"{value:.9g}" if isinstance(value, float) else value

        return cell

    columns: list[Column] = [("file_name", lambda row: row["file_name"])]
    for rank in range(top_k):
        columns += [(f"{key}_{rank + 1}", make_cell(rank, key)) for key in ("label", "score")]
    if options.prediction_sets is not None:
        columns.append(("prediction_set", lambda row: " | ".join(row.get("prediction_set", []))))
    if options.ood:
        columns.append(("ood_p_value", lambda row: f"{row['ood_p_value']:.4g}" if "ood_p_value" in row else ""))
        columns.append(("ood", lambda row: ("no", "yes")[row["ood"]] if "ood" in row else ""))
    return [*columns, ("error", lambda row: row.get("error", ""))]


def _count_rows(rows: Iterator[dict[str, Any]], result: PredictionResult) -> Iterator[dict[str, Any]]:
    for row in rows:
        result.total += 1
        if "error" in row:
            result.errors.append(f"{row['file_name']}: {row['error']}")
        yield row


def _write_rows(
    rows: Iterator[dict[str, Any]], file: TextIO, as_jsonl: bool, columns: list[Column], result: PredictionResult
) -> None:
    """Writes and counts rows."""
    for row in _count_rows(rows, result):
        if as_jsonl:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        else:
            file.write(csv_line([cell(row) for _, cell in columns]))
        file.flush()  # an interruption loses no completed row
