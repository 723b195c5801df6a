"""Images per second from disk to tensors, by reader: `python scripts/benchmarks/readers.py`.

The same JPEGs (1280 x 1024), the same transform (to 224 x 224, flips, tensor), one process and one thread: from class
folders with torchvision's ImageFolder and with `datasets`; from tar shards with WebDataset (`pip install webdataset`;
skipped if it is missing) and with `datasets`; with hf_mae from folders, shards, and its cache. Rounds are interleaved;
the table shows medians from the second epoch on.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from input import BATCH, SIZE, make_images

BASELINE = "torchvision ImageFolder"


def build_readers(data: Path, shards: Path) -> dict[str, Callable[[], Iterator[int]]]:
    """Name of each reader -> function that starts an epoch and yields the number of images of each batch."""
    import datasets
    import torch
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import Compose, Resize

    from hf_mae.data import TrainDataset, load_image_folder, training_transform
    from hf_mae.data.images.torch_datasets import collate

    ours = training_transform("endoscopy", SIZE)
    plain = Compose([Resize((SIZE, SIZE)), *ours.augment.transforms])

    def batches(dataset, collate_fn=None, shuffle=True):
        loader = torch.utils.data.DataLoader(dataset, BATCH, shuffle=shuffle, collate_fn=collate_fn)
        return lambda: (len(batch["pixel_values"] if isinstance(batch, dict) else batch[1]) for batch in loader)

    def transformed(rows):
        return {"pixel_values": [plain(image.convert("RGB")) for image in rows["image"]], "labels": rows["label"]}

    folder = datasets.load_dataset("imagefolder", data_dir=str(data), split="train").with_transform(transformed)
    tars = sorted(map(str, shards.glob("*.tar")))
    streamed = datasets.load_dataset("webdataset", data_files=tars, split="train", streaming=True)
    streamed = streamed.map(lambda row: {"pixel_values": plain(row["jpg"].convert("RGB"))})
    streamed = streamed.select_columns(["pixel_values"]).with_format("torch")
    readers = {
        BASELINE: batches(ImageFolder(data / "train", plain)),
        "datasets imagefolder": batches(folder),
        "hf_mae, folders, no cache": batches(
            TrainDataset(load_image_folder(data)["train"], ours, cache=False), collate
        ),
        "datasets webdataset, streamed": batches(streamed, shuffle=False),
    }
    if find_spec("webdataset"):
        import webdataset

        stream = webdataset.WebDataset(tars, shardshuffle=len(tars)).shuffle(1000).decode("pil").to_tuple("jpg", "cls")
        readers["WebDataset"] = batches(stream.map_tuple(plain, int), shuffle=False)
    packed = load_image_folder(shards)["train"]
    return readers | {
        "hf_mae, shards, no cache": batches(TrainDataset(packed, ours, cache=False), collate),
        "hf_mae, shards, cached as JPEG of quality 95": batches(TrainDataset(packed, ours, quality=95), collate),
        "hf_mae, shards, cached as pixels": batches(TrainDataset(packed, ours), collate),
    }


def main(count: int, rounds: int) -> None:
    import torch

    torch.set_num_threads(1)
    names = ("torch", "torchvision", "datasets", "pillow", *(["webdataset"] if find_spec("webdataset") else []))
    print(f"{os.cpu_count()} cores ({platform.machine()}); {', '.join(f'{n} {version(n)}' for n in names)}\n")
    with tempfile.TemporaryDirectory() as place:
        os.environ["HF_HOME"] = f"{place}/home"
        from hf_mae.workflows.shard import shard

        data, shards = Path(place) / "data", Path(place) / "shards"
        make_images(data, count)
        shard(data_dir=str(data), output_dir=str(shards), shard_size="20MB")
        readers = build_readers(data, shards)
        rates: dict[str, list[float]] = {name: [] for name in readers}
        for number in range(rounds + 1):
            for name, start_epoch in readers.items():
                started = time.perf_counter()
                read = sum(start_epoch())
                assert read == count, (name, read)
                if number:  # the first round fills the caches
                    rates[name].append(count / (time.perf_counter() - started))
    plain = statistics.median(rates[BASELINE])
    print(f"| {count} images, one core | images/s | ratio to {BASELINE} |\n|---|---|---|")
    for name, values in rates.items():
        rate = statistics.median(values)
        print(f"| {name} | {rate:.0f} | {rate / plain:.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    main(options.images, options.rounds)
