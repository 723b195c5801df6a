"""Cost per image from 1,000 to 100,000 images: `python scripts/benchmarks/scaling.py`.

Generated folders of small JPEGs. For each size, one process prepares them, and another starts from the cache and
reads one epoch of training batches. In brackets: the cost per image in addition to the row above. Memory counts
anonymous pages of the process, not memory-mapped images.
"""

import argparse
import io
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hf_mae.data.images.torch_datasets import TrainDataset, collate
from hf_mae.data.images.transforms import training_transform
from hf_mae.data.sources.split_loading import load_image_folder


def measure(folder: str, read_epoch: bool) -> None:
    """Prints seconds until the data set is prepared, seconds of one epoch, and memory of the process in kB."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    images = TrainDataset(load_image_folder(folder)["train"], training_transform("endoscopy", 64))
    ready = time.perf_counter()
    if read_epoch:
        count = sum(len(batch["labels"]) for batch in torch.utils.data.DataLoader(images, 64, collate_fn=collate))
        assert count == len(images)
    epoch = time.perf_counter()
    with open("/proc/self/smaps_rollup") as file:
        own = next(int(line.split()[1]) for line in file if line.startswith("Anonymous:"))
    print(ready - started, epoch - ready, own)


def make_images(folder: Path, count: int) -> None:
    """Writes files of ten classes with the content of fifty images."""
    contents = []
    for number in range(50):
        pixels = np.random.default_rng(number).integers(0, 255, (12, 12, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((96, 96), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=80)
        contents.append(buffer.getvalue())
    for label in range(10):
        (folder / "train" / f"class_{label}").mkdir(parents=True)
    for number in range(count):
        # Each file has a unique tail, because the loader rejects copies of one image with two labels.
        (folder / "train" / f"class_{number % 10}" / f"{number:06d}.jpg").write_bytes(
            contents[number % 50] + number.to_bytes(4, "big")
        )


def main(counts: list[int]) -> None:
    print(f"{os.cpu_count()} cores ({platform.machine()})")
    print("| images | prepare | second start | one epoch | memory of the process |")
    print("|---|---|---|---|---|")
    before = (0, 0.0, 0.0, 0.0, 0.0)
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            make_images(Path(folder) / "data", count)
            found = {}
            for when in ("first", "again"):
                done = subprocess.run(
                    [sys.executable, __file__, "--measure", f"{folder}/data", when],
                    capture_output=True,
                    text=True,
                    check=True,
                    env=os.environ | {"HF_HOME": f"{folder}/home"},
                )
                found[when] = [float(word) for word in done.stdout.split()]
        now = (count, found["first"][0], *found["again"])
        each = [(value - old) / (count - before[0]) for value, old in zip(now, before)]
        cells = [
            f"{value:.1f} s" + f" ({1e3 * more:.3f} ms)" * bool(before[0]) for value, more in zip(now[1:4], each[1:])
        ]
        cells.append(f"{now[4] / 1e3:.0f} MB" + f" ({1e3 * each[4]:.0f} bytes)" * bool(before[0]))
        print(f"| {count:,} | {' | '.join(cells)} |", flush=True)
        before = now


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)  # what a process of the benchmark does
    options = parser.parse_args()
    if options.measure:
        measure(options.measure[0], options.measure[1] == "again")
    else:
        main(options.counts)
