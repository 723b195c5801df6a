"""`prepare`: check a data set, and decode it once into the cache."""

import html
from dataclasses import dataclass
from typing import Any

from datasets import DatasetDict

from ..data.cache_eviction import CacheFullError
from ..data.image_check import ImageCheck, hash_image_files
from ..data.samples import ImageCheckFn, Sample
from ..data.split_loading import load_splits
from ..data.torch_datasets import CachedPixelReader, ResizeAndCrop, cache_pixels
from ..data.transforms import image_processor, parse_mean_std, training_transform
from ..errors import UsageError
from ..reporting.console import format_class_table
from ..settings.data import PreparationArguments
from ..settings.parse import parse_settings


@dataclass(frozen=True)
class PreparedData:
    """A data set that is checked and cached: its splits, and mean and standard deviation of each channel."""

    splits: DatasetDict
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def _repr_html_(self) -> str:
        """For a notebook."""
        return f"<pre>{html.escape(format_class_table(self.splits))}</pre>"


def prepare(*, recipe: str | None = None, **flags: Any) -> PreparedData:
    """Checks and caches a data set, as `finetune` reads it; `flags` are those of `hf-mae prepare`."""
    (options,) = parse_settings("prepare", recipe, **flags).arguments
    try:
        return _prepare(options)
    except CacheFullError as error:
        raise UsageError(
            f"{error} Make room, or pass --cache false to check the images without keeping them."
        ) from None


def _prepare(options: PreparationArguments) -> PreparedData:
    splits = load_splits(options, options.seed, check=make_caching_check(options) if options.cache else None)
    mean, std = parse_mean_std(options.mean_std, options.transforms, splits.get("train"), options.image_size)
    if options.cache:
        edge = options.resolve_cache_shortest_edge(options.image_size)
        transform = training_transform(options.transforms, options.image_size, mean, std, cache_shortest_edge=edge)
        processor = image_processor(options.transforms, options.image_size, mean, std)
        for split, dataset in splits.items():
            resize = transform.resize if split == "train" else ResizeAndCrop(processor)
            if resize is not None:
                quality = options.cache_quality if split == "train" else None
                CachedPixelReader(dataset, resize, options.preprocessing_num_workers, quality)
    return PreparedData(splits, mean, std)


def make_caching_check(options: PreparationArguments) -> ImageCheckFn:
    """A check of the files that keeps what it decodes, so that each is decoded once: as training images or as held-out
    ones, as far as the data set's own splits say which. (Neither resize depends on mean and std.)"""
    workers, size = options.preprocessing_num_workers, options.image_size
    edge = options.resolve_cache_shortest_edge(size)
    for_training = training_transform(options.transforms, size, cache_shortest_edge=edge).resize
    for_evaluation = ResizeAndCrop(image_processor(options.transforms, size))

    def check(entries: list[Sample]) -> ImageCheck:
        paths = [entry.path for entry in entries]
        held_out = [place for place, entry in enumerate(entries) if entry.split != "train"]
        training = [place for place, entry in enumerate(entries) if entry.split == "train"]
        later = cache_pixels([paths[place] for place in held_out], for_evaluation, workers)
        ours = [paths[place] for place in training]
        if for_training is None:
            first = hash_image_files(ours, workers)
        else:
            first = cache_pixels(ours, for_training, workers, options.cache_quality)
        bad: dict[int, str] = {}
        digests = [""] * len(paths)
        for places, verdict in ((training, first), (held_out, later)):
            bad |= {places[place]: reason for place, reason in verdict.bad.items()}
            for place, digest in zip(places, verdict.digests):
                digests[place] = digest
        return ImageCheck(dict(sorted(bad.items())), digests)

    return check
