"""Time to convert a ViT-L `.pth`, relative to a copy of the file: `python scripts/benchmarks/convert.py`.

The checkpoint has random weights in the layout of facebookresearch/mae. Each conversion runs in its own process,
interleaved with the copies.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch

from hf_mae.conversion import export_model
from hf_mae.models.building import SIZES, build_pretrainer

CONVERT = r"""
import re, sys, time
from hf_mae.conversion import convert_checkpoint
import torch, transformers
from transformers import ViTMAEForPreTraining, ViTImageProcessor
started = time.perf_counter()
convert_checkpoint(sys.argv[1], sys.argv[2], to="pretraining")
seconds = time.perf_counter() - started
print(seconds, re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read()).group(1))
"""


def time_copy(source: Path, target: Path) -> float:
    """Seconds to copy a file in chunks of 16 MiB."""
    started = time.perf_counter()
    with open(source, "rb") as reading, open(target, "wb") as writing:
        while piece := reading.read(1 << 24):
            writing.write(piece)
    return time.perf_counter() - started


def main(size: str, rounds: int) -> None:
    names = ("torch", "transformers", "safetensors")
    print(f"{size}; {os.cpu_count()} cores ({platform.machine()}); {', '.join(f'{n} {version(n)}' for n in names)}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pth"
        torch.save({"model": export_model(build_pretrainer(size=size), "pretraining")}, path)
        copies, conversions, memory = [], [], []
        for number in range(rounds):
            copies.append(time_copy(path, Path(folder) / "copy"))
            target = Path(folder) / f"converted-{number}"
            done = subprocess.run(
                [sys.executable, "-c", CONVERT, path, target], capture_output=True, text=True, check=True
            )
            seconds, peak = map(float, done.stdout.split()[-2:])
            conversions.append(seconds)
            memory.append(peak * 1024)
        file_size = path.stat().st_size
    print("| | seconds | ratio |\n|---|---|---|")
    one, other = statistics.median(copies), statistics.median(conversions)
    print(f"| reading and writing {file_size / 1e6:.0f} MB | {one:.2f} | 1.00 |")
    print(f"| hf-mae convert | {other:.2f} | {other / one:.2f} |")
    print(f"Peak memory {max(memory) / file_size:.2f} x the file, with torch and transformers (limit 2.2).")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--size",
        default="vit_large_patch16",
        choices=[name for name in SIZES if "tiny" not in name and "small" not in name],
    )
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    main(options.size, options.rounds)
