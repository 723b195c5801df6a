"""What pre-training on millions of frames needs, by number of GPUs: `python scripts/plan_at_scale.py`.

A calculation from constants, each with where it is from; those that were not measured here are flags. It says which
part is the slowest, from the files and with what is kept of them.
"""

import argparse
from dataclasses import dataclass

# Measured here (docs/measured.md, docs/scale.md), on one CPU core each, from 1280 x 1024 JPEGs of 280 KB.
DECODED_PER_CORE = 70  # images/s from the files, random crop and flip
CACHED_PER_CORE = 258  # images/s from images kept at 448 pixels
FILE_BYTES, CACHED_BYTES, JPEG_FRACTION = 280e3, 448 * 560 * 3, 0.11
START_SECONDS = 17  # imports, a warm index of 4.8 million images, weights
# Computed: ViT-L with its decoder, torch's FlopCounterMode, 75 % masked; times 3 with the backward pass.
FLOPS_PER_IMAGE, PARAMETERS = 3 * 41.5e9, 329.5e6
CHECKPOINT_BYTES = 12 * PARAMETERS  # float32 weights and two moments
GRADIENT_BYTES = 4 * PARAMETERS


@dataclass
class Machine:
    """What a GPU and what is around it can do; from data sheets, times what is usually reached."""

    flops: float  # of a GPU, reached
    cores: int  # for each GPU
    disk: float  # bytes/s that a node reads, 8 GPUs
    network: float  # bytes/s of a GPU among nodes
    shared: float  # bytes/s that all nodes together write
    price: float  # of a GPU and hour


def compute_rates(machine: Machine, gpus: int, batch: int) -> dict[str, float]:
    """Images a second that each part allows."""
    compute = machine.flops / FLOPS_PER_IMAGE * gpus
    nodes = max(gpus // 8, 1)
    sent = 2 * (gpus - 1) / gpus * GRADIENT_BYTES
    return {
        "GPUs": compute,
        "decoding the files": DECODED_PER_CORE * machine.cores * gpus,
        "decoding what is kept": CACHED_PER_CORE * machine.cores * gpus,
        "disk, the files": machine.disk * nodes / FILE_BYTES,
        "disk, kept as pixels": machine.disk * nodes / CACHED_BYTES,
        "disk, kept as JPEG": machine.disk * nodes / (CACHED_BYTES * JPEG_FRACTION),
        "gradients": batch / (sent / machine.network) if gpus > 8 else float("inf"),
    }


def plan_column(
    machine: Machine, gpus: int, images: float, epochs: int, batch: int, save_every: float
) -> dict[str, str]:
    """A column of the table."""
    found = compute_rates(machine, gpus, batch)
    plain = min(found["GPUs"], found["decoding the files"], found["disk, the files"], found["gradients"])
    kept = min(found["GPUs"], found["decoding what is kept"], found["disk, kept as JPEG"], found["gradients"])
    slow = min(("GPUs", "decoding the files", "disk, the files", "gradients"), key=found.__getitem__)
    then = min(("GPUs", "decoding what is kept", "disk, kept as JPEG", "gradients"), key=found.__getitem__)
    hours = images * epochs / kept / 3600
    save = CHECKPOINT_BYTES / machine.shared
    lost = START_SECONDS + save + 60 * save_every / 2
    return {
        "the GPUs could do": f"{found['GPUs']:,.0f} images/s",
        "cores to decode the files": f"{found['GPUs'] / DECODED_PER_CORE:,.0f} (there are {machine.cores * gpus:,})",
        "cores with `--cache_shortest_edge 448`": f"{found['GPUs'] / CACHED_PER_CORE:,.0f}",
        "read: files, pixels, JPEG": ", ".join(
            f"{found['GPUs'] * size / 1e9:,.1f}" for size in (FILE_BYTES, CACHED_BYTES, CACHED_BYTES * JPEG_FRACTION)
        )
        + " GB/s",
        "an update's gradients take": "within a node" if gpus <= 8 else f"{1e3 * batch / found['gradients']:,.0f} ms",
        "an update's arithmetic takes": f"{1e3 * batch / found['GPUs']:,.0f} ms",
        "slowest from the files": f"{slow}: {plain:,.0f} images/s",
        "slowest with what is kept": f"{then}: {kept:,.0f} images/s",
        "hours, GPU hours": f"{hours:,.0f} h, {hours * gpus:,.0f}",
        "price": f"{hours * gpus * machine.price:,.0f}",
        f"a checkpoint ({CHECKPOINT_BYTES / 1e9:.1f} GB) takes": f"{save:,.0f} s",
        "a lost node costs": f"{lost / 60:,.0f} minutes",
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
        f"{options.images / 1e6:g} million frames, {options.epochs} epochs of ViT-L, {options.batch} images an update"
    )
    files, kept = FILE_BYTES * options.images, CACHED_BYTES * options.images
    jpeg = JPEG_FRACTION * kept
    sizes = f"files {files / 1e12:.1f} TB; kept {kept / 1e12:.1f} TB as pixels, {jpeg / 1e12:.2f} TB as JPEG"
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
    parser.add_argument("--batch", type=int, default=4096, help="images an update, all GPUs together")
    parser.add_argument("--flops", type=float, default=400, help="TFLOP/s that a GPU reaches (H100, bf16: 989 at most)")
    parser.add_argument("--cores", type=int, default=12, help="CPU cores for each GPU")
    parser.add_argument("--disk", type=float, default=6, help="GB/s that a node's disk reads")
    parser.add_argument("--network", type=float, default=40, help="GB/s of a GPU among nodes")
    parser.add_argument("--shared", type=float, default=2, help="GB/s that the shared file system writes")
    parser.add_argument("--price", type=float, default=2.5, help="of a GPU and hour")
    parser.add_argument("--save_every", type=float, default=30, help="minutes between checkpoints")
    main(parser.parse_args())
