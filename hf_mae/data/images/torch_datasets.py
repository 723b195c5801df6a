"""Torch datasets over a `datasets.Dataset` of images: decoded once, augmented reproducibly.

Random numbers depend on (seed, epoch, image) alone, not on the number of workers and processes or on interruptions.
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

from ...compat.datasets import get_fingerprint
from ...errors import UsageError, warn
from ...files.archive_members import is_remote, parse_member
from ...files.caches import file_keys
from ...settings.limits import CarriesLimits
from ...settings.training import INSTANCE_BALANCED, SAMPLING_EXPONENTS
from ..columns import get_column, get_image_paths, get_label_ids
from ..sampling import ClassBalancedSampler
from .cache_eviction import CacheFullError
from .image_check import ImageCheck, pixel_digest
from .image_error import summarize_image_error
from .image_io import read_rgb
from .messages import ImageMessage
from .pixel_cache import DecodedImage, PixelCache, decode_cached_pixels
from .processors import get_processor_settings, rescale_and_normalize, resize_and_crop
from .seeding import seed_all
from .transforms import TrainingTransform

logger = logging.getLogger(__name__)


class TrainDataset(torch.utils.data.Dataset):
    """Training items `{"pixel_values": float32 (3, H, W), "labels": int, "index": int}` with random augmentation.

    Args:
        dataset: with `image`, `file_name`, and (except for pre-training) `labels`.
        transform: result of `training_transform`; its `resize` is applied once and cached.
        seed: seed of the random numbers, together with the epoch and the index.
        cache: cache resized images on disk (only if the transform has a `resize`).
        num_workers: number of threads that decode images for the cache.
        on_bad_image: `error` raises an error for an unreadable image; `skip` replaces it with the next one.
        batched: items contain uint8 pixels and augmentation parameters, and `transform.batch_augment` computes the same
            `pixel_values` for a batch (for example, on a GPU); only if the transform has it.
        quality: cache the images as JPEG of this quality; None: as raw pixels.
        sampling: a key of `SAMPLING_EXPONENTS`, or `INSTANCE_BALANCED`: class frequencies of an epoch.
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
        self.file_names: Sequence[str] = dataset["file_name"]  # a lazy column, not a list in memory
        self.labels = get_label_ids(dataset)
        self.transform, self.seed, self.on_bad_image = transform, seed, on_bad_image
        self.batched = batched and cache and transform.batch_augment is not None
        self.sampling: ClassBalancedSampler | None = None
        if sampling != INSTANCE_BALANCED:
            self.sampling = ClassBalancedSampler(self.labels, SAMPLING_EXPONENTS[sampling], seed)
        self._warned: set[int] = set()  # unreadable images with a warning in the log
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # shared with persistent workers
        self.pixels = make_pixel_reader(dataset, transform.resize, cache, num_workers, quality)

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the augmentation and sampling, in this process and its workers."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.file_names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        index, epoch = list_index(index, len(self)), int(self._epoch)
        row = index if self.sampling is None else self.sampling.row(index, epoch)
        row, image = self._load_readable(row)
        with seed_all(self.seed, epoch, row if self.sampling is None else index):  # a sampler can repeat an image
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
        """Loads an image and returns it with its index; if it is unreadable, the next readable one, or an error."""
        for row in chain(range(index, len(self)), range(index)):
            try:
                return row, self.pixels[row]
            except Exception as error:  # each Pillow plugin raises its own types
                reason = summarize_image_error(error)
            if self.on_bad_image == "error":
                raise UsageError(ImageMessage.UNREADABLE_IMAGE, file=self.file_names[row], reason=reason)
            if row not in self._warned:
                self._warned.add(row)
                warn(logger, ImageMessage.IMAGE_REPLACED, file=self.file_names[row], reason=reason)
        raise UsageError(ImageMessage.NO_READABLE_IMAGE)


class EvalDataset(torch.utils.data.Dataset):
    """Items like those of `TrainDataset`, preprocessed with the image processor that is saved with the model."""

    def __init__(self, dataset: datasets.Dataset, processor: Any, cache: bool = True, num_workers: int | None = None):
        self.file_names: Sequence[str] = dataset["file_name"]
        self.groups = get_column(dataset, "group")
        self.labels: Any = get_label_ids(dataset)  # class ids (images,); None without labels
        self.processor = processor
        self.pixels = make_pixel_reader(dataset, ResizeAndCrop(processor), cache, num_workers)

    def __len__(self) -> int:
        return len(self.file_names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = list_index(index, len(self))
        item = {"pixel_values": rescale_and_normalize(self.processor, np.array(self.pixels[index])), "index": index}
        if self.labels is not None:
            item["labels"] = int(self.labels[index])
        return item


def list_index(index: int, length: int) -> int:
    """Returns the position from the start of an index of a list, which counts from the end if it is negative.

    Raises:
        IndexError: If the list is shorter; this ends a loop over the list.
    """
    return range(length)[index]


class ResizeAndCrop:
    """The first part of an image processor, resize and crop, in uint8. Its `repr` is a cache key."""

    def __init__(self, processor: Any):
        self.processor = processor

    def __call__(self, image: Image.Image) -> Image.Image:
        """Resizes and crops an RGB image."""
        return resize_and_crop(self.processor, image)

    def __repr__(self) -> str:
        names = ("size", "resample", "do_resize", "do_center_crop", "crop_size")
        settings = get_processor_settings(self.processor)
        return f"{type(self.processor).__name__}({', '.join(f'{name}={settings.get(name)}' for name in names)})"


def make_pixel_reader(
    dataset: datasets.Dataset,
    resize: Callable | None,
    cache: bool,
    num_workers: int | None,
    quality: int | None = None,
) -> "CachedPixelReader | PixelReader":
    """Creates a cached reader if requested and if there is enough disk space, otherwise an uncached one."""
    if cache and resize is not None:
        try:
            return CachedPixelReader(dataset, resize, num_workers, quality)
        except CacheFullError as error:
            warn(logger, ImageMessage.DECODING_EVERY_EPOCH, reason=error)
    return PixelReader(dataset, resize)


class PixelReader(CarriesLimits):
    """RGB images, decoded (and resized) at every access."""

    def __init__(self, dataset: datasets.Dataset, resize: Callable | None):
        self.dataset = dataset.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))
        self.resize = resize

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Image.Image:
        image = read_rgb(self.dataset[list_index(index, len(self))]["image"])
        return image if self.resize is None else self.resize(image)


class CachedPixelReader:
    """RGB images, decoded and resized once into a `PixelCache`, which runs, processes, splits and folds share.

    A changed image is decoded again.
    """

    def __init__(
        self, dataset: datasets.Dataset, resize: Callable, num_workers: int | None, quality: int | None = None
    ):
        raw = dataset.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))
        files = get_image_paths(dataset)
        keys = file_keys(files)
        if not files:  # images in a parquet file have no path
            keys = [f"{get_fingerprint(dataset)}-{index}" for index in range(len(dataset))]

        def decode(index: int) -> DecodedImage:
            return _decode_and_resize({"path": files[index]} if files else raw[index]["image"], resize)

        cache, self.quality = PixelCache(repr(resize), quality), quality
        cache.add(keys, decode, num_workers, _common_folder(files))
        self.dataset, self.rows = cache.get_rows(keys)

    def __len__(self) -> int:
        return len(self.rows)

    def array(self, index: int) -> np.ndarray:
        """Returns an image as uint8 (height, width, 3), read-only."""
        row = self.dataset[int(self.rows[list_index(index, len(self))])]
        return decode_cached_pixels(row["pixels"][0].as_buffer(), row["shape"][0].as_py(), self.quality)

    def __getitem__(self, index: int) -> Image.Image:
        return Image.fromarray(self.array(index))


def cache_pixels(paths: list[str], resize: Callable, num_workers: int | None, quality: int | None = None) -> ImageCheck:
    """Decodes and resizes files into the pixel cache that `CachedPixelReader` uses.

    Returns:
        Reasons of the files that cannot be decoded, and digests of the others before resizing.

    Raises:
        CacheFullError: If the disk or `--cache_limit` is too small.
    """
    bad: dict[int, str] = {}

    def decode(index: int) -> DecodedImage | None:
        try:
            return _decode_and_resize({"path": paths[index]}, resize)
        except Exception as error:  # each Pillow plugin raises its own types
            bad[index] = summarize_image_error(error, paths[index])
            return None

    cache, keys = PixelCache(repr(resize), quality), file_keys(paths)
    cache.add(keys, decode, num_workers, _common_folder(paths))
    return ImageCheck(bad, cache.get_digests(keys))


def _common_folder(paths: list[str]) -> str:
    """Returns the common parent folder of files; for remote files, the first of their folders."""
    folders = {os.path.dirname(member.archive if (member := parse_member(path)) else path) for path in paths}
    if any(map(is_remote, folders)):
        return min(folders)
    return os.path.commonpath([os.path.abspath(folder) for folder in folders]) if folders else ""


def _decode_and_resize(encoded: dict[str, Any], resize: Callable) -> DecodedImage:
    image = read_rgb(encoded)
    return np.asarray(resize(image), dtype=np.uint8), pixel_digest(image)


def collate(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Stacks items: `pixel_values` (B, C, H, W), `labels` (B,) or (B, classes), and all other numbers and tensors."""
    first = items[0]
    if "pixel_values" not in first and "pixels" not in first:
        raise UsageError(ImageMessage.NO_PIXEL_VALUES, keys=list(first))
    renamed = {} if "labels" in first else {"label": "labels", "label_ids": "labels"}  # as the stock Trainer
    return {
        renamed.get(name, name): torch.stack([torch.as_tensor(item[name]) for item in items])
        for name, value in first.items()
        if not isinstance(value, (str, bytes, dict)) and value is not None
    }
