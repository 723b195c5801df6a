"""Cost of a data set with millions of images for a training process: `python scripts/benchmarks/volume.py`.

Shards with an index of many images (the rows of the index point to a few thousand tiny images, so that 4.8 million
need no terabyte). For each size a process reads the shards for pre-training as `hf-mae pretrain` does: first without
the index in the cache, then with it; then it resumes in the middle of an epoch. Memory is the private memory of the
process minus that with 1,000 images (memory-mapped files are not counted), and the private memory of two workers.

`--predict` runs `hf-mae predict` on as many images with a tiny model. It prints the memory when a tenth of the rows is
written and at the end, and images per second of one process on one core and of two processes that share the images, one
core each (a tenth of the largest size).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from hf_mae.data.sources.archive import INDEX_FILE, INDEX_SCHEMA
from hf_mae.data.sources.shard_writer import write_shards
from hf_mae.data.sources.unlabelled import load_unlabelled

PROGRAM = """
import json, os, sys, time
import torch
from accelerate import Accelerator
from hf_mae.compat.accelerate import with_small_sampler
from hf_mae.data.fingerprint import data_fingerprint
from hf_mae.data.images.torch_datasets import TrainDataset, collate
from hf_mae.data.images.transforms import pretraining_transform
from hf_mae.data.sources.unlabelled import load_unlabelled
from accelerate.utils import DataLoaderConfiguration

def own(pid="self"):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Private_Dirty:")) / 1e3

torch.set_num_threads(1)
began = time.perf_counter()
images = load_unlabelled(sys.argv[1], "error", decode=False)
data_fingerprint({"train": images})
data = TrainDataset(images, pretraining_transform("endoscopy", 32), cache=False)
started = time.perf_counter() - began
accelerator = Accelerator(dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True), cpu=True)
loader = torch.utils.data.DataLoader(data, 64, shuffle=True, collate_fn=collate, num_workers=2)
loader = with_small_sampler(accelerator.prepare(loader))
began = time.perf_counter()
steps = iter(accelerator.skip_first_batches(loader, len(loader) // 2))
next(steps)
resumed = time.perf_counter() - began
workers = [int(pid) for pid in open(f"/proc/self/task/{os.getpid()}/children").read().split()]
print(json.dumps([started, resumed, own(), max([own(pid) for pid in workers], default=0)]))
"""

PREDICT = """
import json, os, sys, time
import torch
from hf_mae.workflows.predict import predict

module, began = sys.modules["hf_mae.workflows.predict"], 0.0
images_of = module.sources

def timed(*args):
    global began
    began = time.perf_counter()  # the model is loaded, and the first image is requested
    yield from images_of(*args)

module.sources = timed

def own():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Private_Dirty:")) / 1e3

class MeasuringStream:  # replaces the CSV on standard output
    rows, memory = -1, 0.0

    def write(self, text):
        self.rows += 1
        if self.rows == tenth:
            self.memory = own()

    def flush(self):
        pass

shards, model, count, part = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
torch.set_num_threads(1)
if len(sys.argv) > 5:  # pin to one core
    os.sched_setaffinity(0, {int(part[0]) - 1})
tenth = count // 10
stream = MeasuringStream()
flags = {}
if part != "1/1":
    flags = {"num_shards": int(part[2]), "shard_index": int(part[0]) - 1}
    flags |= {"output": f"{model}/{part[0]}_of_{part[2]}.csv", "overwrite": True}
flags |= {"preprocessing_num_workers": 1, "batch_size": 64, "top_k": 1}
done = predict(stream=stream, images=[shards], model_name_or_path=model, **flags)
print(json.dumps([done.total / (time.perf_counter() - began), stream.memory, own()]))
"""


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
        [sys.executable, "-c", *map(str, argv)],
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
    return read_result(start_process(home, PROGRAM, folder / "shards"))


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
        options = PREDICT, folder / "shards", make_tiny_classifier(folder)
        for count in counts:
            replicate_index(folder, count)
            speed, tenth, end = read_result(start_process(home, *options, count, "1/1"))
            print(f"| {count:,} | {speed:.0f} | {tenth:.0f} MB | {end:.0f} MB |", flush=True)
        replicate_index(folder, counts[-1] // 10)
        alone = read_result(start_process(home, *options, 1, "1/1", "pinned"))[0]
        pair = [
            read_result(process)
            for process in [start_process(home, *options, 1, f"{number}/2", "pinned") for number in (1, 2)]
        ]
        each = sum(speed for speed, *_ in pair) / 2
        print(f"\nOne process: {alone:.0f} images/s; two that share them: {each:.0f} each ({each / alone:.2f} x).")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 4_800_000])
    parser.add_argument("--files", type=int, default=2000, help="number of images in the shards")
    parser.add_argument("--predict", action="store_true", help="predict them")
    options = parser.parse_args()
    (benchmark_predict if options.predict else main)(options.counts, options.files)
