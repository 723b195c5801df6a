"""Cost of a data set with millions of images for a training process: `python scripts/benchmarks/volume.py`.

Shards with an index of many images (the rows of the index point to a few thousand tiny images, so that 4.8 million
need no terabyte). For each size a process reads the shards for pre-training as `hf-mae pretrain` does: first without
the index in the cache, then with it; then it resumes in the middle of an epoch. Memory is the private memory of the
process minus that with 1,000 images (memory-mapped files are not counted), and the private memory of two workers.

`--predict` runs `hf-mae predict` on as many images with a tiny model. It prints the memory when a tenth of the rows is
written and at the end, and images per second of one process on one core and of two processes at the same time, one core
each (a tenth of the largest size).
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from PIL import Image

from hf_mae.compat.accelerate import use_low_memory_sampler
from hf_mae.data.fingerprint import data_fingerprint
from hf_mae.data.images.torch_datasets import TrainDataset, collate
from hf_mae.data.images.transforms import pretraining_transform
from hf_mae.data.sources.archive import INDEX_FILE, INDEX_SCHEMA
from hf_mae.data.sources.shard_writer import write_shards
from hf_mae.data.sources.unlabelled import load_unlabelled
from hf_mae.settings.parse import parse_settings
from hf_mae.workflows.predict import predict

BATCH = 64


def private_memory(pid: int | str = "self") -> float:
    """Returns the private memory of a process in MB."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Private_Dirty:")) / 1e3


def measure_training(shards: str) -> list[float]:
    """Reads shards as `hf-mae pretrain` does.

    Returns:
        Seconds until the data set is open, seconds of the first batch in the middle of an epoch, and memory in MB of
        the process and of its larger worker.
    """
    torch.set_num_threads(1)
    began = time.perf_counter()
    images = load_unlabelled(shards, "error", decode=False)
    data_fingerprint({"train": images})
    data = TrainDataset(images, pretraining_transform("endoscopy", 32), cache=False)
    started = time.perf_counter() - began
    accelerator = Accelerator(dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True), cpu=True)
    loader = torch.utils.data.DataLoader(data, 64, shuffle=True, collate_fn=collate, num_workers=2)
    loader = use_low_memory_sampler(accelerator.prepare(loader))
    began = time.perf_counter()
    next(iter(accelerator.skip_first_batches(loader, len(loader) // 2)))
    resumed = time.perf_counter() - began
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        workers = [private_memory(pid) for pid in file.read().split()]
    return [started, resumed, private_memory(), max(workers, default=0)]


class MeasuringStream(io.TextIOBase):
    """Replaces the CSV: time of the first row, and memory when a tenth of the rows is written."""

    def __init__(self, tenth: int):
        self.tenth, self.num_rows, self.began, self.memory = tenth, -1, 0.0, 0.0

    def write(self, text: str) -> int:
        self.num_rows += 1
        if self.num_rows == 1:
            self.began = time.perf_counter()
        if self.num_rows == self.tenth:
            self.memory = private_memory()
        return len(text)


def measure_prediction(shards: str, model: str, count: str, core: str = "") -> list[float]:
    """Predicts all images with one thread, on one core if its number is given.

    Returns:
        Images per second after the first batch, and memory in MB at a tenth and at the end.
    """
    torch.set_num_threads(1)
    if core:
        os.sched_setaffinity(0, {int(core)})
    stream = MeasuringStream(int(count) // 10)
    options = {"preprocessing_num_workers": 1, "batch_size": BATCH, "top_k": 1}
    settings = parse_settings("predict", images=[shards], model_name_or_path=model, **options)
    result = predict.run(settings, stream=stream)
    seconds = time.perf_counter() - stream.began
    return [(result.total - BATCH) / seconds, stream.memory, private_memory()]


def make_shards(folder: Path, files: int) -> None:
    """Writes shards of `count` tiny images."""
    (folder / "images").mkdir()
    for number in range(files):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number:05d}.jpg")
    from datasets import DatasetDict

    write_shards(
        DatasetDict({"train": load_unlabelled(str(folder / "images"), "error")}), folder / "shards", 10**9, 0, None
    )


def replicate_index(folder: Path, count: int) -> None:
    """Writes an index of `count` images with unique names for existing shards."""
    table = pq.read_table(folder / "shards" / INDEX_FILE)
    rows = table.take(pa.array(np.arange(count) % len(table)))
    names = pa.array((f"patient_{number // 100:06d}/frame_{number:08d}.jpg" for number in range(count)), pa.string())
    rows = rows.set_column(rows.schema.get_field_index("file_name"), "file_name", names)
    rows = rows.cast(INDEX_SCHEMA.with_metadata(table.schema.metadata))
    about = json.loads(table.schema.metadata[b"hf_mae"]) | {"data": str(count)}
    pq.write_table(rows.replace_schema_metadata({"hf_mae": json.dumps(about)}), folder / "shards" / INDEX_FILE)


def start_process(home: str, *argv) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, __file__, "--measure", *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"HF_HOME": home, "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"},
    )


def read_result(process: subprocess.Popen) -> list[float]:
    output, errors = process.communicate()
    if process.returncode:
        raise SystemExit(errors)
    return json.loads(output.splitlines()[-1])


def measure_start(folder: Path, home: str) -> list[float]:
    return read_result(start_process(home, "training", folder / "shards"))


def main(counts: list[int], files: int) -> None:
    print("| images | first start | second start | first batch of a resumed epoch | memory | memory of a worker |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_shards(folder, files)
        base: list[float] | None = None
        for count in [1000, *counts]:
            replicate_index(folder, count)
            first, again = (measure_start(folder, f"{place}/home") for _ in range(2))
            base = base or again
            memory, worker = again[2] - base[2], again[3] - base[3]
            cells = [f"{count:,}", f"{first[0]:.1f} s", f"{again[0]:.1f} s", f"{again[1]:.1f} s"]
            cells += [f"{memory:.0f} MB", f"{worker:.0f} MB"]
            print(f"| {' | '.join(cells)} |", flush=True)


def make_tiny_classifier(folder: Path) -> Path:
    """Builds a model so small that reading images dominates the time."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16)
    config = ViTConfig(**sizes, image_size=16, patch_size=16, id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1})
    ViTForImageClassification(config).save_pretrained(folder / "model")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder / "model")
    return folder / "model"


def benchmark_predict(counts: list[int], files: int) -> None:
    print("| images predicted | images/s | memory at a tenth | at the end |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        folder, home = Path(place), f"{place}/home"
        make_shards(folder, files)
        options = "prediction", folder / "shards", make_tiny_classifier(folder)
        for count in counts:
            replicate_index(folder, count)
            speed, tenth, end = read_result(start_process(home, *options, count))
            print(f"| {count:,} | {speed:.0f} | {tenth:.0f} MB | {end:.0f} MB |", flush=True)
        replicate_index(folder, counts[-1] // 10)
        alone = read_result(start_process(home, *options, 1, 0))[0]
        pair = [read_result(process) for process in [start_process(home, *options, 1, core) for core in (0, 1)]]
        each = sum(speed for speed, *_ in pair) / 2
        print(f"\nOne process: {alone:.0f} images/s; two at the same time: {each:.0f} each ({each / alone:.2f} x).")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 4_800_000])
    parser.add_argument("--files", type=int, default=2000, help="number of images in the shards")
    parser.add_argument("--predict", action="store_true", help="predict them")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)  # what a process of the benchmark does
    options = parser.parse_args()
    if options.measure:
        name, *arguments = options.measure
        print(json.dumps((measure_training if name == "training" else measure_prediction)(*arguments)))
        sys.exit()
    (benchmark_predict if options.predict else main)(options.counts, options.files)
