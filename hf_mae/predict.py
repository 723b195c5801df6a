"""`hf-mae predict`: top classes of image files, in the order given, as CSV or JSONL."""

import argparse
import csv
import glob
import io
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from tqdm.auto import tqdm

from .conversion.writing import whole_file
from .errors import UsageError


def find_images(patterns: list[str]) -> list[str]:
    """Files from files, folders (searched whole, sorted) and globs, in the order given.

    Raises:
        UsageError: a pattern that stands for nothing.
    """
    from .data.folders import image_files_below

    found = []
    for pattern in patterns:
        if os.path.isdir(pattern):
            inside = image_files_below(pattern)
            if not inside:
                raise UsageError(f"The folder {pattern} holds no images.")
            found += inside
        elif glob.has_magic(pattern) and not os.path.exists(pattern):
            inside = sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
            if not inside:
                raise UsageError(f"Nothing matches {pattern}.")
            found += inside
        else:
            found.append(pattern)  # a file that is missing is reported with the others, in its place
    return found


def prepare(path: str, processor):
    """Pixel values (C, H, W) of a file, or the sentence on why there are none."""
    from PIL import Image

    from .data.transforms import to_rgb

    try:
        with Image.open(path) as image:
            return processor(to_rgb(image), return_tensors="pt")["pixel_values"][0]
    except FileNotFoundError:
        return "no such file"
    except Exception as error:  # PIL raises whatever the format's plugin does
        return " ".join(str(error).replace(path, "the file").split()) or type(error).__name__


def predict_files(
    model, processor, paths: list[str], batch_size: int = 32, top_k: int = 5, num_workers: int = 2
) -> Iterator[dict]:
    """Yields, in order, `{"file_name", "predictions": [{"label", "score"}, ...]}` or `{"file_name", "error"}`.

    Args:
        model: a stock image classifier in evaluation mode, on the device to use.
        paths: image files.
        top_k: how many classes, best first.
        num_workers: threads that decode.
    """
    import torch

    names = model.config.id2label
    top_k = min(top_k, model.config.num_labels)
    remaining = iter(paths)
    with ThreadPoolExecutor(num_workers) as pool:
        ahead = []  # batches whose images are being decoded while the model works

        def submit():
            batch = list(islice(remaining, batch_size))
            if batch:
                ahead.append((batch, [pool.submit(prepare, path, processor) for path in batch]))

        submit()
        while ahead:
            submit()
            batch, futures = ahead.pop(0)
            prepared = [future.result() for future in futures]
            good = [tensor for tensor in prepared if not isinstance(tensor, str)]
            if good:
                with torch.inference_mode():
                    logits = model(pixel_values=torch.stack(good).to(model.device, model.dtype)).logits
                top = logits.float().softmax(-1).topk(top_k)
                rows = iter(zip(top.values.tolist(), top.indices.tolist()))
            for path, tensor in zip(batch, prepared):
                if isinstance(tensor, str):
                    yield {"file_name": path, "error": tensor}
                else:
                    scores, ids = next(rows)
                    best = [{"label": names[i], "score": score} for i, score in zip(ids, scores)]
                    yield {"file_name": path, "predictions": best}


def write_rows(rows: Iterator[dict], file: io.TextIOBase, as_jsonl: bool, top_k: int) -> tuple[int, list[str]]:
    """Writes rows as they come; returns how many there were and what was wrong with the bad ones."""
    total, bad = 0, []
    writer = None if as_jsonl else csv.writer(file)
    if writer:
        ranks = range(1, top_k + 1)
        writer.writerow(["file_name", *(c for rank in ranks for c in (f"label_{rank}", f"score_{rank}")), "error"])
    for row in rows:
        total += 1
        if "error" in row:
            bad.append(f"{row['file_name']}: {row['error']}")
        if as_jsonl:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        else:
            cells = [cell for best in row.get("predictions", []) for cell in (best["label"], f"{best['score']:.6f}")]
            cells += [""] * (2 * top_k - len(cells))
            writer.writerow([row["file_name"], *cells, row.get("error", "")])
    return total, bad


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("hf-mae predict", description="Top classes of image files, in the order given.")
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="files, folders and globs")
    parser.add_argument("--model_name_or_path", "--model-name-or-path", required=True, help="a folder or a Hub id")
    parser.add_argument("--output", help="FILE.csv or FILE.jsonl; not given: CSV on the standard output")
    parser.add_argument("--top_k", "--top-k", type=int, default=5, help="classes for each image (default: %(default)s)")
    parser.add_argument(
        "--batch_size", "--batch-size", type=int, default=32, help="images per forward pass (default: %(default)s)"
    )
    parser.add_argument(
        "--num_workers", "--num-workers", type=int, default=os.cpu_count() or 1, help="threads that decode"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output file")
    options = parser.parse_args(argv)
    if min(options.top_k, options.batch_size, options.num_workers) < 1:
        raise UsageError("--top_k, --batch_size and --num_workers must be at least 1.")
    if options.output and not options.output.endswith((".csv", ".jsonl")):
        raise UsageError(f"--output takes a name that ends in .csv or .jsonl, not {options.output}.")
    paths = find_images(options.images)

    import torch

    from .evaluate import load_classifier
    from .runs import set_up_logging

    set_up_logging(True)
    model, processor = load_classifier(options.model_name_or_path)
    if torch.cuda.is_available():
        model.to("cuda")
    top_k = min(options.top_k, model.config.num_labels)
    rows = predict_files(model, processor, paths, options.batch_size, top_k, options.num_workers)
    rows = tqdm(rows, total=len(paths), unit="image", desc="Predicting", delay=1)
    if options.output:
        with (
            whole_file(options.output, options.overwrite) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            total, bad = write_rows(rows, file, options.output.endswith(".jsonl"), top_k)
        print(f"{total - len(bad)} of {total} images predicted: {options.output}", file=sys.stderr)
    else:
        total, bad = write_rows(rows, sys.stdout, False, top_k)
    for fault in bad:
        print(f"hf-mae predict: {fault}", file=sys.stderr)
    return 1 if bad else 0
