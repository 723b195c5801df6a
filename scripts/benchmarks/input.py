"""Images per second and core from 1280 x 1024 JPEGs to tensors: `python scripts/benchmarks/input.py`.

One process, one thread, batches from a `DataLoader` as in training, compared with plain torchvision and timm. Rounds
are interleaved; the table shows medians. Then: the cold start on all cores compared with decoding and resizing alone,
with its peak memory; and the pixel error of the imagenet transform if images are cached at twice the image size.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

SIZE, BATCH = 224, 16


def make_images(folder: Path, count: int) -> None:
    """Two classes of smooth colours with fine grain; a file has about 280 KB, like an endoscopy frame."""
    for number in range(count):
        generator = np.random.default_rng(number)
        coarse = Image.fromarray(generator.integers(40, 220, (40, 50, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((1280, 1024), Image.Resampling.BICUBIC), dtype=np.float32)
        pixels = pixels + generator.normal(0, 5, pixels.shape)
        path = folder / "train" / f"class_{number % 2}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def build_loaders(data: Path) -> dict:
    """Name of each variant -> data loader."""
    import torch
    from timm.data import create_transform
    from torchvision import datasets, transforms

    from hf_mae.data import TrainDataset, load_image_folder, training_transform
    from hf_mae.data.images.torch_datasets import collate

    train = load_image_folder(data)["train"]
    endoscopy, imagenet = (training_transform(family, SIZE) for family in ("endoscopy", "imagenet"))
    cached = training_transform("imagenet", SIZE, cache_shortest_edge=2 * SIZE)
    plain = transforms.Compose([transforms.Resize((SIZE, SIZE)), *endoscopy.augment.transforms])
    of_timm = create_transform(SIZE, is_training=True, color_jitter=None, auto_augment="rand-m9-mstd0.5-inc1",
                               interpolation="bicubic", re_prob=0.25, re_mode="pixel")  # fmt: skip

    def loader(dataset, collate_fn=None):
        return torch.utils.data.DataLoader(dataset, BATCH, shuffle=True, drop_last=True, collate_fn=collate_fn)

    return {
        "endoscopy: plain (PIL, torchvision)": loader(datasets.ImageFolder(data / "train", plain)),
        "endoscopy: hf_mae, cached": loader(TrainDataset(train, endoscopy), collate),
        "endoscopy: hf_mae, not cached": loader(TrainDataset(train, endoscopy, cache=False), collate),
        "imagenet: plain (ImageFolder, timm)": loader(datasets.ImageFolder(data / "train", of_timm)),
        "imagenet: hf_mae, cached at 448": loader(TrainDataset(train, cached), collate),
        "imagenet: hf_mae, not cached": loader(TrainDataset(train, imagenet), collate),
    }


def has_same_tensors(data: Path) -> bool:
    """Whether the cached path gives exactly the tensors of the plain path, for the same random draws."""
    import torch
    from torchvision import transforms

    from hf_mae.data import TrainDataset, load_image_folder, training_transform
    from hf_mae.data.images.seeding import seed_all

    train, endoscopy = load_image_folder(data)["train"], training_transform("endoscopy", SIZE)
    plain = transforms.Compose([transforms.Resize((SIZE, SIZE)), *endoscopy.augment.transforms])
    images = TrainDataset(train, endoscopy, seed=7)
    for index in range(len(images)):
        with seed_all(7, 0, index):
            expected = plain(train[index]["image"].convert("RGB"))
        if not torch.equal(images[index]["pixel_values"], expected):
            return False
    return True


def benchmark_loaders(data: Path, rounds: int) -> None:
    import torch

    torch.set_num_threads(1)
    found = build_loaders(data)
    rates = {name: [] for name in found}
    for number in range(rounds + 1):
        for name, loader in found.items():
            count, started = 0, time.perf_counter()
            for batch in loader:
                count += len(batch[0] if isinstance(batch, list) else batch["pixel_values"])
            if number:  # the first fills the cache
                rates[name].append(count / (time.perf_counter() - started))
    print("| images/s on one core, from the second epoch on | | ratio to plain |\n|---|---|---|")
    plain = 1.0
    for name, values in rates.items():
        rate = statistics.median(values)
        plain = rate if ": plain" in name else plain
        print(f"| {name} | {rate:.0f} | {rate / plain:.2f} |")
    print(f"\nendoscopy, cached: identical to the tensors of the plain path: {has_same_tensors(data)}")


def benchmark_cold_start(data: Path, count: int) -> None:
    """Compares `hf-mae prepare` in its own process with decoding and resizing alone; prints time and peak memory.

    Imports are not counted.
    """
    files, paths = sorted(data.rglob("*.jpg")), []
    for number in range(count):  # hard links: many files without the time to create them
        file = files[number % len(files)]
        paths.append(data.parent / "cold" / file.parent.name / f"{number:05d}.jpg")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        os.link(file, paths[-1])

    def decode(path):
        return np.asarray(Image.open(path).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)).sum()

    started = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode, paths))
    bare = count / (time.perf_counter() - started)
    code = (
        "import re, time\n"
        "from hf_mae.data import TrainDataset, image_processor\n"
        "from hf_mae.workflows.prepare import prepare\n"
        "image_processor('endoscopy', 32)\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read()).group(1))\n"
        "before, started = peak(), time.perf_counter()\n"
        f"prepare(data_dir={str(data.parent / 'cold')!r}, image_size={SIZE})\n"
        "print(time.perf_counter() - started, peak(), before)"
    )
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"HF_HOME": home, "OMP_NUM_THREADS": "1"},
        )
    seconds, peak, before = map(float, done.stdout.splitlines()[-1].split())
    rate = count / seconds
    print(
        f"Cold start (hf-mae prepare), {count} images, {os.cpu_count()} cores: {rate:.0f} images/s, {rate / bare:.2f} x"
        f" of decoding and resizing alone ({bare:.0f}/s); peak memory {peak / 1e6:.2f} GB "
        f"(imports: {before / 1e6:.2f} GB)."
    )


def measure_cache_resize_error(frames: Path) -> None:
    """Prints the mean pixel difference between a random crop of the file and the same crop of the cached image.

    The shorter side of the frames has 224 pixels, so an image size of 56 reduces them like 224 reduces 896.
    """
    import torch
    from torchvision.transforms import InterpolationMode, RandomResizedCrop
    from torchvision.transforms.functional import resized_crop

    from hf_mae.data.images.transforms import BoundedResize

    torch.manual_seed(0)
    keep, differences = BoundedResize(2 * 56), []
    for path in sorted(frames.glob("*.jpg"))[:200]:
        image = Image.open(path).convert("RGB")
        cached = keep(image)
        box = RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3))
        scale = cached.height / image.height
        same_box = [max(round(value * scale), least) for value, least in zip(box, (0, 0, 1, 1))]
        crops = [
            np.asarray(resized_crop(picture, *where, [56, 56], InterpolationMode.BICUBIC), dtype=np.float32)
            for picture, where in ((image, box), (cached, same_box))
        ]
        differences.append(np.abs(crops[0] - crops[1]).mean())
    print(
        f"imagenet, cached at twice the image size, real frames of four times the image size: pixels of a crop "
        f"differ by {statistics.mean(map(float, differences)):.2f} grey levels of 255 on average."
    )


def main(count: int, rounds: int, cold: int, frames: Path) -> None:
    names = ("torch", "torchvision", "timm", "datasets", "pillow")
    print(f"{os.cpu_count()} cores ({platform.machine()}); {', '.join(f'{n} {version(n)}' for n in names)}\n")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_HOME"] = f"{folder}/home"
        data = Path(folder) / "data"
        make_images(data, count)
        benchmark_loaders(data, rounds)
        benchmark_cold_start(data, cold)
    if frames.is_dir():
        measure_cache_resize_error(frames)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", type=int, default=2000, help="number of files of the cold start")
    parser.add_argument("--frames", type=Path, default=Path(__file__).parents[3] / "shared/data/colonoscopy_frames")
    options = parser.parse_args()
    main(options.images, options.rounds, options.cold, options.frames)
