"""Torch data sets over a `datasets.Dataset` of images: decoded once, augmented reproducibly.

What is random depends on (seed, epoch, image) alone, so that neither the number of workers and processes nor an
interruption changes it.
"""

import io
import logging
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import datasets
import numpy as np
import torch
from PIL import Image

from ..cache import cache_folder
from ..errors import UsageError
from .check import files_fingerprint
from .folders import image_files
from .transforms import TrainingTransform, to_rgb

logger = logging.getLogger(__name__)


@contextmanager
def seeded_draws(*seed: int) -> Iterator[None]:
    """Seeds `random`, numpy and torch (CPU) for a block, and puts their states back afterwards."""
    # torch.default_generator: torch.manual_seed would look at every accelerator first, 0.1 ms an image.
    generator = torch.default_generator
    states = random.getstate(), np.random.get_state(legacy=False), generator.get_state()
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    random.seed(number)
    np.random.seed(number)
    generator.manual_seed(number)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        generator.set_state(states[2])


class TrainingImages(torch.utils.data.Dataset):
    """Items `{"pixel_values": float32 (3, H, W), "labels": int, "index": int}`, augmented anew in every epoch.

    Args:
        dataset: with `image`, and `labels` unless it is for pre-training, and `file_name`.
        transform: of `training_transform`; its `resize` is applied once and cached.
        seed: with the epoch and the index, decides every random draw.
        cache: keep resized images on disk (only where the transform has a `resize`).
        num_workers: threads that decode for the cache.
        on_bad_image: an image that turns out unreadable in training is an error that names it (`error`), or the next
            one takes its place (`skip`).
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        transform: TrainingTransform,
        seed: int = 0,
        cache: bool = True,
        num_workers: int | None = None,
        on_bad_image: str = "error",
    ):
        self.file_names = dataset["file_name"][:]
        self.labels = np.asarray(dataset["labels"][:]) if "labels" in dataset.column_names else None
        self.transform, self.seed, self.on_bad_image = transform, seed, on_bad_image
        self._told: set[int] = set()  # of the unreadable images, those that were warned of
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # seen by persistent workers too
        if cache and transform.resize is not None:
            self.pixels = CachedPixels(dataset, transform.resize, num_workers)
        else:
            self.pixels = DecodedPixels(dataset, transform.resize)

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.file_names)

    def __getitem__(self, index: int) -> dict:
        index, image = self._readable(index)
        with seeded_draws(self.seed, int(self._epoch), index):
            item = {"pixel_values": self.transform.augment(image), "index": index}
        if self.labels is not None:
            item["labels"] = int(self.labels[index])
        return item

    def _readable(self, index: int) -> tuple[int, Image.Image]:
        """The image with its index; for one that cannot be read an error, or the next one that can."""
        for place in (*range(index, len(self)), *range(index)):
            try:
                return place, self.pixels[place]
            except Exception as error:  # PIL raises whatever the format's plugin does
                reason = " ".join(str(error).split()) or type(error).__name__
            if self.on_bad_image == "error":
                raise UsageError(
                    f"{self.file_names[place]} cannot be read ({reason}): mend it, or pass --on_bad_image skip."
                )
            if place not in self._told:
                self._told.add(place)
                logger.warning("%s cannot be read (%s): another image takes its place.", self.file_names[place], reason)
        raise UsageError("None of the training images can be read.")


class EvaluationImages(torch.utils.data.Dataset):
    """Items as of `TrainingImages`, prepared by the image processor that is saved with the model."""

    def __init__(self, dataset: datasets.Dataset, processor, cache: bool = True, num_workers: int | None = None):
        self.file_names = dataset["file_name"][:]
        self.groups = dataset["group"][:] if "group" in dataset.column_names else None
        self.labels = np.asarray(dataset["labels"][:]) if "labels" in dataset.column_names else None
        self.processor = processor
        prefix = ProcessorPrefix(processor)
        self.pixels = CachedPixels(dataset, prefix, num_workers) if cache else DecodedPixels(dataset, prefix)

    def __len__(self) -> int:
        return len(self.file_names)

    def __getitem__(self, index: int) -> dict:
        tensor = torch.from_numpy(np.array(self.pixels[index])).permute(2, 0, 1)
        prepared = self.processor(tensor, do_resize=False, do_center_crop=False, return_tensors="pt")
        item = {"pixel_values": prepared["pixel_values"][0], "index": index}
        if self.labels is not None:
            item["labels"] = int(self.labels[index])
        return item


class ProcessorPrefix:
    """The part of an image processor that comes before the arithmetic: resize and crop, in uint8."""

    def __init__(self, processor):
        self.processor = processor

    def __call__(self, image: Image.Image) -> Image.Image:
        cropped = self.processor(image, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"][0]
        return Image.fromarray(cropped.to(torch.uint8).permute(1, 2, 0).numpy())

    def __repr__(self) -> str:
        kept = ("size", "resample", "do_resize", "do_center_crop", "crop_size")
        settings = self.processor.to_dict()
        return f"{type(self.processor).__name__}({', '.join(f'{name}={settings.get(name)}' for name in kept)})"


class DecodedPixels:
    """RGB images, decoded (and resized) at every access."""

    def __init__(self, dataset: datasets.Dataset, resize: Callable | None):
        self.dataset, self.resize = dataset.select_columns(["image"]), resize

    def __getitem__(self, index: int) -> Image.Image:
        image = to_rgb(self.dataset[index]["image"])
        return image if self.resize is None else self.resize(image)


class CachedPixels:
    """RGB images, decoded and resized once into an Arrow file: uint8 bytes in a binary column, memory-mapped.

    The file's name is a fingerprint of the images (path, size, time) and of the resize, so that runs, processes and
    folds share it and a changed image is decoded again.
    """

    def __init__(self, dataset: datasets.Dataset, resize: Callable, num_workers: int | None):
        raw = dataset.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))
        files = image_files(dataset)
        fingerprint = files_fingerprint(files, "1", repr(resize), "" if files else dataset._fingerprint)
        path = cache_folder() / "images" / f"{fingerprint}.arrow"
        path.parent.mkdir(parents=True, exist_ok=True)
        features = {"pixels": datasets.Value("binary"), "shape": datasets.List(datasets.Value("int32"))}
        cached = raw.map(
            _decode_rows,
            batched=True,
            batch_size=64,
            writer_batch_size=64,
            fn_kwargs={"resize": resize, "num_workers": num_workers or os.cpu_count() or 1},
            remove_columns=["image"],
            cache_file_name=str(path),
            load_from_cache_file=True,
            new_fingerprint=fingerprint,
            features=datasets.Features(features),
            desc="Decoding images",
        )
        self.dataset = cached.with_format("arrow")

    def __getitem__(self, index: int) -> Image.Image:
        row = self.dataset[index]
        shape = row["shape"][0].as_py()
        return Image.fromarray(np.frombuffer(row["pixels"][0].as_buffer(), dtype=np.uint8).reshape(shape))


def _decode_rows(batch: dict, resize: Callable, num_workers: int) -> dict:
    """Decodes and resizes in threads: both let go of the interpreter's lock.

    Forked processes would stand still: the threads that torch has started by then do not live on in a fork.
    """

    def pixels_of(encoded: dict) -> np.ndarray:
        return np.asarray(resize(to_rgb(_open(encoded))), dtype=np.uint8)

    with ThreadPoolExecutor(num_workers) as pool:
        arrays = list(pool.map(pixels_of, batch["image"]))
    return {"pixels": [array.tobytes() for array in arrays], "shape": [list(array.shape) for array in arrays]}


def _open(encoded: dict) -> Image.Image:
    """An image of an undecoded column: `{"bytes", "path"}`."""
    return Image.open(io.BytesIO(encoded["bytes"]) if encoded.get("bytes") else encoded["path"])


def collate(items: list[dict]) -> dict[str, torch.Tensor]:
    """Stacks items: `pixel_values` (B, C, H, W), `labels` (B,) or (B, classes), and whatever else they carry."""
    first = items[0]
    if "pixel_values" not in first:
        raise UsageError(f"An item of the data set has no pixel_values; it has {', '.join(map(str, first))}.")
    return {
        name: torch.stack([torch.as_tensor(item[name]) for item in items])
        for name, value in first.items()
        if not isinstance(value, (str, bytes, dict)) and value is not None
    }
