"""Torch data sets over a `datasets.Dataset` of images: decoded once, augmented reproducibly.

What is random depends on (seed, epoch, image) alone, so that neither the number of workers and processes nor an
interruption changes it.
"""

import logging
import os
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image

from ..compat.datasets import get_fingerprint
from ..errors import UsageError
from ..files.archive_members import is_remote, parse_member
from ..files.caches import file_keys
from ..settings.training import INSTANCE_BALANCED, SAMPLING_EXPONENTS
from .cache_eviction import CacheFullError
from .image_check import ImageCheck, pixel_digest
from .image_io import read_rgb, summarize_image_error
from .pixel_cache import PixelCache, decode_cached_pixels
from .processors import get_processor_settings, rescale_and_normalize, resize_and_crop
from .samples import get_column, get_image_paths, get_label_ids
from .sampling import ClassBalancedSampler
from .seeding import seed_all
from .transforms import TrainingTransform

logger = logging.getLogger(__name__)


class TrainDataset(torch.utils.data.Dataset):
    """Items `{"pixel_values": float32 (3, H, W), "labels": int, "index": int}`, augmented anew in every epoch.

    Args:
        dataset: with `image`, and `labels` unless it is for pre-training, and `file_name`.
        transform: of `training_transform`; its `resize` is applied once and cached.
        seed: with the epoch and the index, decides every random draw.
        cache: keep resized images on disk (only where the transform has a `resize`).
        num_workers: threads that decode for the cache.
        batched: items hold uint8 pixels and what was drawn for them, and `transform.batch` of a whole batch (on a GPU,
            say) makes the very same `pixel_values` of them; only where the transform has it.
        on_bad_image: an image that turns out unreadable in training is an error that names it (`error`), or the next
            one takes its place (`skip`).
        quality: keep them as JPEG of this quality; None: as they are, exactly.
        sampling: a key of `SAMPLINGS`: the share that each class has of an epoch.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        transform: TrainingTransform,
        seed: int = 0,
        cache: bool = True,
        num_workers: int | None = None,
        on_bad_image: str = "error",
        batched: bool = False,
        quality: int | None = None,
        sampling: str = INSTANCE_BALANCED,
    ):
        self.file_names: Sequence[str] = dataset["file_name"]  # where they lie: on the disk, if the data set does
        self.labels = get_label_ids(dataset)
        self.transform, self.seed, self.on_bad_image = transform, seed, on_bad_image
        self.batched = batched and cache and transform.batch_augment is not None
        self.sampling: ClassBalancedSampler | None = None
        if sampling != INSTANCE_BALANCED:
            self.sampling = ClassBalancedSampler(self.labels, SAMPLING_EXPONENTS[sampling], seed)
        self._warned: set[int] = set()  # of the unreadable images, those that were warned of
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # seen by persistent workers too
        self.pixels = make_pixel_reader(dataset, transform.resize, cache, num_workers, quality)

    def set_epoch(self, epoch: int) -> None:
        """From now on, random draws are those of this epoch (worker processes included)."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.file_names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        epoch = int(self._epoch)
        row = index if self.sampling is None else self.sampling.row(index, epoch)
        row, image = self._load_readable(row)
        with seed_all(self.seed, epoch, row if self.sampling is None else index):  # an image may come twice
            if self.batched and self.transform.batch_augment is not None:
                item: dict[str, Any] = {
                    "pixels": torch.from_numpy(np.array(image)),
                    "augment_params": self.transform.batch_augment.sample_params(image.height, image.width),
                }
            else:
                item = {"pixel_values": self.transform.augment(image)}
        item["index"] = row
        if self.labels is not None:
            item["labels"] = int(self.labels[row])
        return item

    def _load_readable(self, index: int) -> tuple[int, Image.Image]:
        """The image with its index; for one that cannot be read an error, or the next one that can."""
        for place in chain(range(index, len(self)), range(index)):
            try:
                return place, self.pixels[place]
            except Exception as error:  # PIL raises whatever the format's plugin does
                reason = summarize_image_error(error)
            if self.on_bad_image == "error":
                raise UsageError(
                    f"{self.file_names[place]} cannot be read ({reason}): mend it, or pass --on_bad_image skip."
                )
            if place not in self._warned:
                self._warned.add(place)
                logger.warning("%s cannot be read (%s): another image takes its place.", self.file_names[place], reason)
        raise UsageError("None of the training images can be read.")


class EvalDataset(torch.utils.data.Dataset):
    """Items as of `TrainingImages`, prepared by the image processor that is saved with the model."""

    def __init__(self, dataset: datasets.Dataset, processor: Any, cache: bool = True, num_workers: int | None = None):
        self.file_names: Sequence[str] = dataset["file_name"]
        self.groups = get_column(dataset, "group")
        self.labels = get_label_ids(dataset)
        self.processor = processor
        prefix = ResizeAndCrop(processor)
        self.pixels = make_pixel_reader(dataset, prefix, cache, num_workers)

    def __len__(self) -> int:
        return len(self.file_names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = {"pixel_values": rescale_and_normalize(self.processor, np.array(self.pixels[index])), "index": index}
        if self.labels is not None:
            item["labels"] = int(self.labels[index])
        return item


class ResizeAndCrop:
    """The part of an image processor that comes before the arithmetic: resize and crop, in uint8."""

    def __init__(self, processor: Any):
        self.processor = processor

    def __call__(self, image: Image.Image) -> Image.Image:
        """RGB image -> RGB image as the model sees it."""
        return resize_and_crop(self.processor, image)

    def __repr__(self) -> str:
        kept = ("size", "resample", "do_resize", "do_center_crop", "crop_size")
        settings = get_processor_settings(self.processor)
        return f"{type(self.processor).__name__}({', '.join(f'{name}={settings.get(name)}' for name in kept)})"


def make_pixel_reader(
    dataset: datasets.Dataset,
    resize: Callable | None,
    cache: bool,
    num_workers: int | None,
    quality: int | None = None,
) -> "CachedPixelReader | PixelReader":
    """The images, kept decoded where that is wanted and there is room for it; else decoded at every access."""
    if cache and resize is not None:
        try:
            return CachedPixelReader(dataset, resize, num_workers, quality)
        except CacheFullError as error:
            logger.warning("%s Images are decoded anew in every epoch, which is slower.", error)
    return PixelReader(dataset, resize)


class PixelReader:
    """RGB images, decoded (and resized) at every access."""

    def __init__(self, dataset: datasets.Dataset, resize: Callable | None):
        self.dataset = dataset.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))
        self.resize = resize

    def __getitem__(self, index: int) -> Image.Image:
        image = read_rgb(self.dataset[index]["image"])
        return image if self.resize is None else self.resize(image)


class CachedPixelReader:
    """RGB images, decoded and resized once into a `PixelStore`, which runs, processes, splits and folds share.

    A changed image is decoded again.

    Args:
        quality: kept as JPEG of this quality; None: as they are.
    """

    def __init__(
        self, dataset: datasets.Dataset, resize: Callable, num_workers: int | None, quality: int | None = None
    ):
        raw = dataset.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))
        files = get_image_paths(dataset)
        keys = file_keys(files)
        if not files:  # images within a parquet file have no name of their own
            keys = [f"{get_fingerprint(dataset)}-{index}" for index in range(len(dataset))]

        def decode(index: int) -> tuple[np.ndarray, str]:
            return _decode_and_resize({"path": files[index]} if files else raw[index]["image"], resize)

        store, self.quality = PixelCache(repr(resize), quality), quality
        store.add(keys, decode, num_workers, _common_folder(files))
        self.dataset, self.rows = store.rows(keys)

    def array(self, index: int) -> np.ndarray:
        """uint8 (height, width, 3), read-only."""
        row = self.dataset[int(self.rows[index])]
        return decode_cached_pixels(row["pixels"][0].as_buffer(), row["shape"][0].as_py(), self.quality)

    def __getitem__(self, index: int) -> Image.Image:
        return Image.fromarray(self.array(index))


def cache_pixels(paths: list[str], resize: Callable, num_workers: int | None, quality: int | None = None) -> ImageCheck:
    """Decodes and resizes files into the store, for `CachedPixelReader` to find.

    Returns:
        Those that cannot be decoded, with the reason, and what tells the others by their pixels.

    Raises:
        NoRoom: the disk, or `--cache_limit`, has no room for them.
    """
    bad: dict[int, str] = {}

    def decode(index: int) -> tuple[np.ndarray, str] | None:
        try:
            return _decode_and_resize({"path": paths[index]}, resize)
        except Exception as error:  # PIL raises whatever the format's plugin does
            bad[index] = summarize_image_error(error, paths[index])
            return None

    store, keys = PixelCache(repr(resize), quality), file_keys(paths)
    store.add(keys, decode, num_workers, _common_folder(paths))
    return ImageCheck(bad, store.digests(keys))


def _common_folder(paths: list[str]) -> str:
    """The folder that holds all of them."""
    places = {os.path.dirname(member.archive if (member := parse_member(path)) else path) for path in paths}
    if any(map(is_remote, places)):
        return min(places)
    return os.path.commonpath([os.path.abspath(place) for place in places]) if places else ""


def _decode_and_resize(encoded: dict[str, Any], resize: Callable) -> tuple[np.ndarray, str]:
    """uint8 (height, width, 3), and the digest of the whole image."""
    image = read_rgb(encoded)
    return np.asarray(resize(image), dtype=np.uint8), pixel_digest(image)


def collate(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Stacks items: `pixel_values` (B, C, H, W), `labels` (B,) or (B, classes), and whatever else they carry."""
    first = items[0]
    if "pixel_values" not in first and "pixels" not in first:
        raise UsageError(f"An item of the data set has no pixel_values; it has {', '.join(map(str, first))}.")
    return {
        name: torch.stack([torch.as_tensor(item[name]) for item in items])
        for name, value in first.items()
        if not isinstance(value, (str, bytes, dict)) and value is not None
    }
