"""`predict`: top classes of images and of videos' frames, in the order given, as rows, CSV or JSONL."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TextIO

from ..data.inputs import Part, expected, find_images, sources
from ..errors import UsageError
from ..files.growing import growing_file, join_parts, part_names
from ..files.writing import csv_line
from ..settings.evaluation import PredictionArguments
from ..settings.fill import fill


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
    rows, head, settings = _classifier_of(options, paths, part)
    result = Predicted(output=options.output)
    if not options.output:
        if to is not None:
            to.write(csv_line(head))
            _write_rows(rows(set()), to, False, len(head), result)
        return result
    as_jsonl = options.output.endswith(".jsonl")
    images = {"images": options.images, "fps": options.fps}
    parts = part_names(options.output, part.of, settings | images) if part.of > 1 else [options.output]
    result.own, result.part_of = parts[part.number], part.of
    table = growing_file(result.own, None if as_jsonl else head, settings, options.resume, options.overwrite)
    with table as (file, done):
        result.before = len(done)
        _write_rows(rows(done), file, as_jsonl, len(head), result)
    result.joined = part.of > 1 and join_parts(parts, options.output, 0 if as_jsonl else 1)
    return result


def _classifier_of(
    options: PredictionArguments, paths: list[str], part: Part
) -> tuple[Callable[[set[str]], Iterator[dict[str, Any]]], list[str], dict[str, Any]]:
    """A function (names that are done -> rows), the columns of a CSV, and what all rows have in common."""
    import torch
    from tqdm.auto import tqdm

    from ..evaluation.prediction import predict_files
    from ..models.loading import load_classifier
    from ..models.views import averaged_views
    from ..runs.temperature import read_temperature

    temperature = read_temperature(options.temperature, options.tta) if options.temperature else 1.0
    model, processor = load_classifier(str(options.model_name_or_path))
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
            )
            count = max(total, len(done))
            silent = True if part.number else None
            bar = tqdm(found, total=count, initial=len(done), unit="image", desc="Predicting", delay=1, disable=silent)
            yield from bar

    settings = {"model": options.model_name_or_path, "top_k": top_k, "tta": options.tta, "bf16": options.bf16}
    return rows, _columns(top_k), settings | {"temperature": temperature}


def _columns(top_k: int) -> list[str]:
    ranks = range(1, top_k + 1)
    return ["file_name", *(c for rank in ranks for c in (f"label_{rank}", f"score_{rank}")), "error"]


def _write_rows(rows: Iterator[dict[str, Any]], file: TextIO, as_jsonl: bool, width: int, result: Predicted) -> None:
    """Writes rows as they come, and counts them."""
    for row in rows:
        result.total += 1
        if "error" in row:
            result.faults.append(f"{row['file_name']}: {row['error']}")
        if as_jsonl:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        else:
            cells = [cell for best in row.get("predictions", []) for cell in (best["label"], f"{best['score']:.9g}")]
            cells += [""] * (width - 2 - len(cells))
            file.write(csv_line([row["file_name"], *cells, row.get("error", "")]))
        file.flush()  # what is done is kept, whatever comes
