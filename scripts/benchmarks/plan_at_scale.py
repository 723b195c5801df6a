"""Resources to pre-train on millions of frames, by number of GPUs: `python scripts/benchmarks/plan_at_scale.py`.

A calculation from constants with their sources; constants that were not measured here are flags. It shows the
bottleneck with image files and with a cache.
"""

import argparse
from dataclasses import dataclass

# Measured here (docs/measured.md, docs/scale.md), on one CPU core each, from 1280 x 1024 JPEGs of 280 KB.
DECODED_PER_CORE = 70  # images/s from the files, random crop and flip
CACHED_PER_CORE = 258  # images/s from images cached at 448 pixels
FILE_BYTES, CACHED_BYTES, JPEG_FRACTION = 280e3, 448 * 560 * 3, 0.11
START_SECONDS = 7.0  # seconds, docs/scale.md: imports, cached index of 4.8 million images, weights
# Computed: ViT-L with its decoder, torch's FlopCounterMode, 75 % masked; times 3 with the backward pass.
FLOPS_PER_IMAGE, PARAMETERS = 3 * 41.5e9, 329.5e6
CHECKPOINT_BYTES = 12 * PARAMETERS  # float32 weights and two moments
GRADIENT_BYTES = 4 * PARAMETERS


@dataclass
class Machine:
    """Throughput of a GPU, its node and the network: data sheet values times a typical efficiency."""

    flops: float  # of a GPU, sustained
    cores: int  # per GPU
    disk: float  # bytes/s that a node with 8 GPUs reads
    network: float  # bytes/s per GPU between nodes
    shared: float  # bytes/s that all nodes write together
    price: float  # per GPU hour


def compute_rates(machine: Machine, gpus: int, batch: int) -> dict[str, float]:
    """Maximum images per second by component."""
    compute = machine.flops / FLOPS_PER_IMAGE * gpus
    nodes = max(gpus // 8, 1)
    sent = 2 * (gpus - 1) / gpus * GRADIENT_BYTES
    return {
        "GPUs": compute,
        "decoding the files": DECODED_PER_CORE * machine.cores * gpus,
        "decoding the cache": CACHED_PER_CORE * machine.cores * gpus,
        "disk, the files": machine.disk * nodes / FILE_BYTES,
        "disk, cached as pixels": machine.disk * nodes / CACHED_BYTES,
        "disk, cached as JPEG": machine.disk * nodes / (CACHED_BYTES * JPEG_FRACTION),
        "gradients": batch / (sent / machine.network) if gpus > 8 else float("inf"),
    }


def plan_column(
    machine: Machine, gpus: int, images: float, epochs: int, batch: int, save_every: float
) -> dict[str, str]:
    """Computes a column of the table."""
    found = compute_rates(machine, gpus, batch)
    plain = min(found["GPUs"], found["decoding the files"], found["disk, the files"], found["gradients"])
    cached = min(found["GPUs"], found["decoding the cache"], found["disk, cached as JPEG"], found["gradients"])
    slow = min(("GPUs", "decoding the files", "disk, the files", "gradients"), key=found.__getitem__)
    then = min(("GPUs", "decoding the cache", "disk, cached as JPEG", "gradients"), key=found.__getitem__)
    hours = images * epochs / cached / 3600
    save = CHECKPOINT_BYTES / machine.shared
    lost = START_SECONDS + save + 60 * save_every / 2
    return {
        "compute limit": f"{found['GPUs']:,.0f} images/s",
        "CPU cores to decode": f"{found['GPUs'] / DECODED_PER_CORE:,.0f} ({machine.cores * gpus:,} available)",
        "CPU cores with `--cache_shortest_edge 448`": f"{found['GPUs'] / CACHED_PER_CORE:,.0f}",
        "read: files, pixels, JPEG": ", ".join(
            f"{found['GPUs'] * size / 1e9:,.1f}" for size in (FILE_BYTES, CACHED_BYTES, CACHED_BYTES * JPEG_FRACTION)
        )
        + " GB/s",
        "gradient exchange per update": "within a node" if gpus <= 8 else f"{1e3 * batch / found['gradients']:,.0f} ms",
        "compute per update": f"{1e3 * batch / found['GPUs']:,.0f} ms",
        "bottleneck with files": f"{slow}: {plain:,.0f} images/s",
        "bottleneck with the cache": f"{then}: {cached:,.0f} images/s",
        "hours, GPU hours": f"{hours:,.0f} h, {hours * gpus:,.0f}",
        "price": f"{hours * gpus * machine.price:,.0f}",
        f"save a checkpoint ({CHECKPOINT_BYTES / 1e9:.1f} GB)": f"{save:,.0f} s",
        "loss if a node fails": f"{lost / 60:,.0f} minutes",
    }


def main(options: argparse.Namespace) -> None:
    machine = Machine(
        options.flops * 1e12,
        options.cores,
        options.disk * 1e9,
        options.network * 1e9,
        options.shared * 1e9,
        options.price,
    )
    print(
        f"{options.images / 1e6:g} million frames, {options.epochs} epochs of ViT-L, {options.batch} images per update"
    )
    files, cached = FILE_BYTES * options.images, CACHED_BYTES * options.images
    jpeg = JPEG_FRACTION * cached
    sizes = f"files {files / 1e12:.1f} TB; cache {cached / 1e12:.1f} TB as pixels, {jpeg / 1e12:.2f} TB as JPEG"
    print(f"On the disk: {sizes}\n")
    columns = [
        plan_column(machine, gpus, options.images, options.epochs, options.batch, options.save_every)
        for gpus in options.gpus
    ]
    print("| | " + " | ".join(f"{gpus} GPUs" for gpus in options.gpus) + " |\n|---|" + "---|" * len(columns))
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(column[name] for column in columns) + " |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 32, 256])
    parser.add_argument("--images", type=float, default=5e6)
    parser.add_argument("--epochs", type=int, default=800)
    parser.add_argument("--batch", type=int, default=4096, help="images per update on all GPUs")
    parser.add_argument("--flops", type=float, default=400, help="sustained TFLOP/s per GPU (H100, bf16 peak: 989)")
    parser.add_argument("--cores", type=int, default=12, help="CPU cores per GPU")
    parser.add_argument("--disk", type=float, default=6, help="read GB/s of a node's disk")
    parser.add_argument("--network", type=float, default=40, help="GB/s per GPU between nodes")
    parser.add_argument("--shared", type=float, default=2, help="write GB/s of the shared file system")
    parser.add_argument("--price", type=float, default=2.5, help="price per GPU hour")
    parser.add_argument("--save_every", type=float, default=30, help="minutes between checkpoints")
    main(parser.parse_args())
