"""`predict`: top classes of images and of videos' frames, in the order given, as rows, CSV or JSONL."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TextIO, TypeAlias

from ..data.inputs import Part, expected, find_images, sources
from ..errors import UsageError
from ..files.growing import growing_file, join_parts, part_names
from ..files.writing import csv_line
from ..settings.evaluation import PredictionArguments
from ..settings.fill import fill

logger = logging.getLogger(__name__)

Column: TypeAlias = tuple[str, Callable[[dict[str, Any]], str]]  # its name, and its cell of a row


@dataclass
class Predicted:
    """What became of the images.

    Args:
        total: rows that were written.
        before: rows that the output had already.
        faults: what was wrong with the images that could not be read.
        output: the file that was asked for; None: the rows went to `to`.
        own: the file that the rows went to: `output`, or a part of it.
        part_of: how many parts it has.
        joined: whether the parts were put together here, since all are whole.
    """

    total: int = 0
    before: int = 0
    faults: list[str] = field(default_factory=list)
    output: str | None = None
    own: str | None = None
    part_of: int = 1
    joined: bool = False


def predict(*, to: TextIO | None = None, **flags: Any) -> Predicted:
    """Classifies image files and the frames of videos.

    Args:
        to: where a CSV goes if there is no `output`.
        flags: the flags of `hf-mae predict`.
    """
    (options,) = fill("predict", None, **flags).parts
    paths, part = find_images(options.images, videos=True), Part(*options.part_of())
    if part.of > 1 and os.path.exists(options.output) and not options.overwrite:
        raise UsageError(f"{options.output} exists: pass --overwrite, or another name.")
    rows, columns, settings = _classifier_of(options, paths, part)
    head = [name for name, _ in columns]
    result = Predicted(output=options.output)
    if not options.output:
        if to is not None:
            to.write(csv_line(head))
            _write_rows(rows(set()), to, False, columns, result)
        return result
    as_jsonl = options.output.endswith(".jsonl")
    images = {"images": options.images, "fps": options.fps}
    parts = part_names(options.output, part.of, settings | images) if part.of > 1 else [options.output]
    result.own, result.part_of = parts[part.number], part.of
    table = growing_file(result.own, None if as_jsonl else head, settings, options.resume, options.overwrite)
    with table as (file, done):
        result.before = len(done)
        _write_rows(rows(done), file, as_jsonl, columns, result)
    result.joined = part.of > 1 and join_parts(parts, options.output, 0 if as_jsonl else 1)
    return result


def _classifier_of(
    options: PredictionArguments, paths: list[str], part: Part
) -> tuple[Callable[[set[str]], Iterator[dict[str, Any]]], list[Column], dict[str, Any]]:
    """A function (names that are done -> rows), the columns of a CSV, and what all rows have in common."""
    import torch
    from tqdm.auto import tqdm

    from ..evaluation.prediction import predict_files
    from ..models.loading import class_names, load_classifier
    from ..models.views import averaged_views
    from ..runs.temperature import read_temperature

    model, processor = load_classifier(str(options.model_name_or_path))
    names = class_names(model)
    temperature = read_temperature(options.temperature or "1", options.tta, names)
    doubt = _doubt_of(options, names)
    model.to(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
    top_k = min(options.top_k, model.config.num_labels)
    total = expected(paths, options.fps, part)
    cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))

    def rows(done: set[str]) -> Iterator[dict[str, Any]]:
        with ExitStack() as stack:
            stack.enter_context(averaged_views(model, options.tta))
            found = predict_files(
                model,
                processor,
                sources(paths, options.fps, done, part),
                options.batch_size,
                top_k,
                options.num_workers or max(cores, 1),
                temperature=temperature,
                bf16=options.bf16,
                doubt=doubt,
                level=options.sets,
                outliers=options.outliers,
            )
            count = max(total, len(done))
            silent = True if part.number else None
            bar = tqdm(found, total=count, initial=len(done), unit="image", desc="Predicting", delay=1, disable=silent)
            yield from bar

    settings = {"model": options.model_name_or_path, "top_k": top_k, "tta": options.tta, "bf16": options.bf16}
    settings |= {"sets": options.sets} if options.sets is not None else {}
    settings |= {"outliers": True} if options.outliers else {}
    return rows, _columns(options, top_k), settings | temperature.facts(names)


def _doubt_of(options: PredictionArguments, names: list[str]) -> Any:
    """What the model does not know, where that is asked for."""
    if options.sets is None and not options.outliers:
        return None
    from ..runs.doubt import read_doubt

    where = options.doubt or str(options.model_name_or_path)
    doubt = read_doubt(where, names, options.tta)
    if options.outliers and doubt.outliers is None:
        raise UsageError(f"{where} knows no outliers: it was fitted without training images.")
    if options.sets is not None and (few := doubt.sets.without_meaning(options.sets)):
        logger.warning(
            "Every set holds %s: too few held-out images tell how often a set without it would be wrong.",
            ", ".join(names[index] for index in few),
        )
    return doubt


def _columns(options: PredictionArguments, top_k: int) -> list[Column]:
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
    if options.sets is not None:
        found.append(("set", lambda row: " | ".join(row.get("set", []))))
    if options.outliers:
        found.append(("outlier_p", lambda row: f"{row['outlier_p']:.4g}" if "outlier_p" in row else ""))
        found.append(("outlier", lambda row: ("no", "yes")[row["outlier"]] if "outlier" in row else ""))
    return [*found, ("error", lambda row: row.get("error", ""))]


def _write_rows(
    rows: Iterator[dict[str, Any]], file: TextIO, as_jsonl: bool, columns: list[Column], result: Predicted
) -> None:
    """Writes rows as they come, and counts them."""
    for row in rows:
        result.total += 1
        if "error" in row:
            result.faults.append(f"{row['file_name']}: {row['error']}")
        if as_jsonl:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        else:
            file.write(csv_line([cell(row) for _, cell in columns]))
        file.flush()  # what is done is kept, whatever comes
