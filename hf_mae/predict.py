"""`hf-mae predict`: top classes of images and of videos' frames, in the order given, as CSV or JSONL."""

import csv
import glob
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice

from tqdm.auto import tqdm

from .cli import Parser
from .errors import UsageError


def find_images(patterns: list[str], videos: bool = False) -> list[str]:
    """Files from files, folders (searched whole, sorted) and globs, in the order given.

    Args:
        videos: look for them in folders too.

    Raises:
        UsageError: a pattern that stands for nothing.
    """
    from .data.files import image_files_below

    found = []
    for pattern in patterns:
        if os.path.isdir(pattern):
            inside = image_files_below(pattern)
            if videos:
                from .data.videos import videos_below

                inside += videos_below(pattern)
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


def sources(paths: list[str], fps: float, done: set[str]) -> Iterator[tuple[str, Callable]]:
    """Name and opener (-> a PIL image) of every image, and of the frames of every video, that is not done.

    Args:
        fps: frames a second that are taken of videos.
        done: names to pass over.
    """
    from PIL import Image

    from .data.videos import frame_name, frames, is_video

    for path in paths:
        if not is_video(path):
            if path not in done:
                yield path, lambda path=path: Image.open(path)
            continue
        try:
            for seconds, image in frames(path, fps):
                if (name := frame_name(path, seconds)) not in done:
                    yield name, lambda image=image: image
        except OSError as error:
            yield path, lambda error=error: _raise(error)


def _raise(error: Exception):
    raise error


def prepare(name: str, opener: Callable, processor):
    """Pixel values (C, H, W) of an image, or the sentence on why there are none."""
    from .data.transforms import to_rgb

    try:
        with opener() as image:
            return processor(to_rgb(image), return_tensors="pt")["pixel_values"][0]
    except FileNotFoundError:
        return "no such file"
    except Exception as error:  # PIL raises whatever the format's plugin does
        return " ".join(str(error).replace(name, "the file").split()) or type(error).__name__


def predict_files(
    model,
    processor,
    items: Iterable[tuple[str, Callable]],
    batch_size: int = 32,
    top_k: int = 5,
    num_workers: int = 2,
    *,
    temperature: float = 1.0,
    bf16: bool = False,
) -> Iterator[dict]:
    """Yields, in order, `{"file_name", "predictions": [{"label", "score"}, ...]}` or `{"file_name", "error"}`.

    Args:
        model: a stock image classifier in evaluation mode, on the device to use.
        items: of `sources`.
        top_k: how many classes, best first.
        num_workers: threads that decode.
        temperature: by which logits are divided.
        bf16: compute in bfloat16.
    """
    import torch

    names = model.config.id2label
    top_k = min(top_k, model.config.num_labels)
    remaining = iter(items)
    kind = model.device.type
    with ThreadPoolExecutor(num_workers) as pool:
        ahead = []  # batches whose images are being decoded while the model works

        def submit():
            batch = list(islice(remaining, batch_size))
            if batch:
                prepared = [pool.submit(prepare, name, opener, processor) for name, opener in batch]
                ahead.append(([name for name, _ in batch], prepared))

        submit()
        while ahead:
            submit()
            batch, futures = ahead.pop(0)
            prepared = [future.result() for future in futures]
            good = [tensor for tensor in prepared if not isinstance(tensor, str)]
            if good:
                pixel_values = torch.stack(good).to(model.device, model.dtype, non_blocking=True)
                with torch.inference_mode(), torch.autocast(kind, torch.bfloat16) if bf16 else nullcontext():
                    logits = model(pixel_values=pixel_values).logits
                top = (logits.float() / temperature).softmax(-1).topk(top_k)
                rows = iter(zip(top.values.tolist(), top.indices.tolist()))
            for path, tensor in zip(batch, prepared):
                if isinstance(tensor, str):
                    yield {"file_name": path, "error": tensor}
                else:
                    scores, ids = next(rows)
                    best = [{"label": names[i], "score": score} for i, score in zip(ids, scores)]
                    yield {"file_name": path, "predictions": best}


def header(top_k: int) -> list[str]:
    """The columns of the CSV."""
    ranks = range(1, top_k + 1)
    return ["file_name", *(c for rank in ranks for c in (f"label_{rank}", f"score_{rank}")), "error"]


def write_rows(rows: Iterator[dict], file, as_jsonl: bool, top_k: int) -> tuple[int, list[str]]:
    """Writes rows as they come; returns how many there were and what was wrong with the bad ones."""
    total, bad = 0, []
    writer = csv.writer(file)
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
        file.flush()  # what is done is kept, whatever comes
    return total, bad


def main(argv: list[str]) -> int:
    parser = Parser("predict", "Top classes of images and of videos' frames, in the order given.")
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="image and video files, folders and globs")
    parser.flag("model_name_or_path", required=True, help="a folder or a Hub id")
    parser.flag("output", help="FILE.csv or FILE.jsonl; not given: CSV on the standard output")
    parser.flag("top_k", type=int, default=5, help="classes for each image (default: %(default)s)")
    parser.flag("batch_size", type=int, default=32, help="images per forward pass (default: %(default)s)")
    parser.flag("num_workers", type=int, help="threads that decode (default: one for each core)")
    parser.flag("fps", type=float, default=1.0, help="frames a second that are taken of videos (default: %(default)s)")
    parser.flag("tta", action="store_true", help="average the scores over eight turned and mirrored views")
    parser.flag("temperature", help="divide the logits: a number, a temperature.json, or a folder with one")
    parser.flag("bf16", action="store_true", help="compute in bfloat16; scores then differ in the third digit")
    parser.flag("resume", action="store_true", help="go on with the output: predict what it lacks, and append")
    parser.flag("overwrite", action="store_true", help="replace the output file")
    options = parser.parse_args(argv)
    if options.num_workers is None:
        options.num_workers = os.cpu_count() or 1
    if min(options.top_k, options.batch_size, options.num_workers) < 1:
        raise UsageError("--top_k, --batch_size and --num_workers must be at least 1.")
    if not options.fps > 0:
        raise UsageError(f"--fps must be above 0, not {options.fps:g}.")
    if options.output and not options.output.endswith((".csv", ".jsonl")):
        raise UsageError(f"--output takes a name that ends in .csv or .jsonl, not {options.output}.")
    if options.resume and not options.output:
        raise UsageError("--resume goes on with a file: name it with --output.")
    paths = find_images(options.images, videos=True)

    import torch

    from .growing import growing_file
    from .models import load_classifier
    from .runs import set_up_logging

    set_up_logging(True)
    temperature = 1.0
    if options.temperature:
        from .temperature import read_temperature

        temperature = read_temperature(options.temperature, options.tta)
    model, processor = load_classifier(options.model_name_or_path)
    if torch.cuda.is_available():
        model.to("cuda")
    if options.tta:
        from .views import average_views

        average_views(model)
    top_k = min(options.top_k, model.config.num_labels)

    def predictions(done: set[str]) -> Iterator[dict]:
        rows = predict_files(
            model,
            processor,
            sources(paths, options.fps, done),
            options.batch_size,
            top_k,
            options.num_workers,
            temperature=temperature,
            bf16=options.bf16,
        )
        total = expected(paths, options.fps)
        return iter(
            tqdm(rows, total=max(total, len(done)), initial=len(done), unit="image", desc="Predicting", delay=1)
        )

    if not options.output:
        csv.writer(sys.stdout).writerow(header(top_k))
        total, bad = write_rows(predictions(set()), sys.stdout, False, top_k)
    else:
        as_jsonl = options.output.endswith(".jsonl")
        settings = {"model": options.model_name_or_path, "top_k": top_k, "tta": options.tta, "bf16": options.bf16}
        settings["temperature"] = temperature
        head = None if as_jsonl else header(top_k)
        with growing_file(options.output, head, settings, options.resume, options.overwrite) as (file, done):
            total, bad = write_rows(predictions(done), file, as_jsonl, top_k)
        before = f" ({len(done)} were there before)" if done else ""
        print(f"{total - len(bad)} of {total} images predicted: {options.output}{before}", file=sys.stderr)
    for fault in bad:
        print(f"hf-mae predict: {fault}", file=sys.stderr)
    return 1 if bad else 0


def expected(paths: list[str], fps: float) -> int:
    """How many rows there will be, about, where there are videos."""
    from .data.videos import is_video, number_of_frames

    return sum(number_of_frames(path, fps) if is_video(path) else 1 for path in paths)
