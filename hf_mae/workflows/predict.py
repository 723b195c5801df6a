"""`predict`: top classes of images and of videos' frames, in the order given, as rows, CSV or JSONL."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TextIO, TypeAlias

from ..data.predict_inputs import Shard, estimate_total, find_input_paths, iter_inputs
from ..errors import UsageError
from ..files.atomic import csv_line
from ..files.resumable_table import merge_table_shards, open_resumable_table, table_shard_paths
from ..settings.evaluation import PredictionArguments
from ..settings.parse import parse_settings

logger = logging.getLogger(__name__)

Column: TypeAlias = tuple[str, Callable[[dict[str, Any]], str]]  # its name, and its cell of a row


@dataclass
class PredictionResult:
    """What became of the images.

    Args:
        total: rows that were written.
        num_existing: rows that the output had already.
        errors: what was wrong with the images that could not be read.
        output: the file that was asked for; None: the rows went to `to`.
        written_path: the file that the rows went to: `output`, or a part of it.
        num_shards: how many parts it has.
        is_merged: whether the parts were put together here, since all are whole.
    """

    total: int = 0
    num_existing: int = 0
    errors: list[str] = field(default_factory=list)
    output: str | None = None
    written_path: str | None = None
    num_shards: int = 1
    is_merged: bool = False


def predict(*, stream: TextIO | None = None, **flags: Any) -> PredictionResult:
    """Classifies image files and the frames of videos.

    Args:
        stream: where a CSV goes if there is no `output`.
        flags: the flags of `hf-mae predict`.
    """
    (options,) = parse_settings("predict", None, **flags).arguments
    paths, part = find_input_paths(options.images, include_videos=True), Shard(*options.part_of())
    if part.num_shards > 1 and os.path.exists(options.output) and not options.overwrite:
        raise UsageError(f"{options.output} exists: pass --overwrite, or another name.")
    rows, columns, settings = _prepare_prediction(options, paths, part)
    head = [name for name, _ in columns]
    result = PredictionResult(output=options.output)
    if not options.output:
        if stream is not None:
            stream.write(csv_line(head))
            _write_rows(rows(set()), stream, False, columns, result)
        return result
    as_jsonl = options.output.endswith(".jsonl")
    images = {"images": options.images, "fps": options.fps}
    parts = (
        table_shard_paths(options.output, part.num_shards, settings | images)
        if part.num_shards > 1
        else [options.output]
    )
    result.written_path, result.num_shards = parts[part.index], part.num_shards
    table = open_resumable_table(
        result.written_path, None if as_jsonl else head, settings, options.resume, options.overwrite
    )
    with table as (file, done):
        result.num_existing = len(done)
        _write_rows(rows(done), file, as_jsonl, columns, result)
    result.is_merged = part.num_shards > 1 and merge_table_shards(parts, options.output, 0 if as_jsonl else 1)
    return result


def _prepare_prediction(
    options: PredictionArguments, paths: list[str], shard: Shard
) -> tuple[Callable[[set[str]], Iterator[dict[str, Any]]], list[Column], dict[str, Any]]:
    """A function (names that are done -> rows), the columns of a CSV, and what all rows have in common."""
    import torch
    from tqdm.auto import tqdm

    from ..evaluation.prediction import predict_files
    from ..models.loading import class_names, load_classifier
    from ..models.tta import apply_tta
    from ..runs.temperature import read_temperature

    model, processor = load_classifier(str(options.model_name_or_path))
    names = class_names(model)
    temperature = read_temperature(options.temperature or "1", options.tta, names)
    doubt = _load_uncertainty(options, names)
    model.to(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
    top_k = min(options.top_k, model.config.num_labels)
    total = estimate_total(paths, options.fps, shard)
    cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))

    def rows(done: set[str]) -> Iterator[dict[str, Any]]:
        with ExitStack() as stack:
            stack.enter_context(apply_tta(model, options.tta))
            found = predict_files(
                model,
                processor,
                iter_inputs(paths, options.fps, done, shard),
                options.batch_size,
                top_k,
                options.num_workers or max(cores, 1),
                temperature=temperature,
                bf16=options.bf16,
                uncertainty=doubt,
                level=options.prediction_sets,
                ood=options.ood,
            )
            count = max(total, len(done))
            silent = True if shard.index else None
            bar = tqdm(found, total=count, initial=len(done), unit="image", desc="Predicting", delay=1, disable=silent)
            yield from bar

    settings = {"model": options.model_name_or_path, "top_k": top_k, "tta": options.tta, "bf16": options.bf16}
    settings |= {"prediction_sets": options.prediction_sets} if options.prediction_sets is not None else {}
    settings |= {"ood": True} if options.ood else {}
    return rows, _build_columns(options, top_k), settings | temperature.to_dict(names)


def _load_uncertainty(options: PredictionArguments, names: list[str]) -> Any:
    """What the model does not know, where that is asked for."""
    if options.prediction_sets is None and not options.ood:
        return None
    from ..runs.uncertainty_io import read_uncertainty

    where = options.uncertainty or str(options.model_name_or_path)
    doubt = read_uncertainty(where, names, options.tta)
    if options.ood and doubt.ood is None:
        raise UsageError(f"{where} knows no outliers: it was fitted without training images.")
    if options.prediction_sets is not None and (
        few := doubt.conformal_sets.uninformative_classes(options.prediction_sets)
    ):
        logger.warning(
            "Every set holds %s: too few held-out images tell how often a set without it would be wrong.",
            ", ".join(names[index] for index in few),
        )
    return doubt


def _build_columns(options: PredictionArguments, top_k: int) -> list[Column]:
    """Name of each column, and its cell of a row."""

    def of_rank(rank: int, key: str) -> Callable[[dict[str, Any]], str]:
        def cell(row: dict[str, Any]) -> str:
            best = row.get("predictions", [])
            value = best[rank][key] if rank < len(best) else ""
            return f"{value:.9g}" if isinstance(value, float) else value

        return cell

    found: list[Column] = [("file_name", lambda row: row["file_name"])]
    for rank in range(top_k):
        found += [(f"{key}_{rank + 1}", of_rank(rank, key)) for key in ("label", "score")]
    if options.prediction_sets is not None:
        found.append(("set", lambda row: " | ".join(row.get("set", []))))
    if options.ood:
        found.append(("outlier_p", lambda row: f"{row['outlier_p']:.4g}" if "outlier_p" in row else ""))
        found.append(("outlier", lambda row: ("no", "yes")[row["outlier"]] if "outlier" in row else ""))
    return [*found, ("error", lambda row: row.get("error", ""))]


def _write_rows(
    rows: Iterator[dict[str, Any]], file: TextIO, as_jsonl: bool, columns: list[Column], result: PredictionResult
) -> None:
    """Writes rows as they come, and counts them."""
    for row in rows:
        result.total += 1
        if "error" in row:
            result.errors.append(f"{row['file_name']}: {row['error']}")
        if as_jsonl:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        else:
            file.write(csv_line([cell(row) for _, cell in columns]))
        file.flush()  # what is done is kept, whatever comes
