"""`prepare`: check a data set, and decode it once into the cache."""

import html
from dataclasses import dataclass
from typing import Any

from datasets import DatasetDict

from ..data.check import Verdict, whole_verdict
from ..data.entries import Check, Entry
from ..data.images import CachedPixels, ProcessorPrefix, keep_decoded
from ..data.room import NoRoom
from ..data.sources import load_splits
from ..data.transforms import image_processor, parse_mean_std, training_transform
from ..errors import UsageError
from ..reporting.screen import class_table
from ..settings.data import PreparationArguments
from ..settings.fill import fill


@dataclass(frozen=True)
class Prepared:
    """A data set that is checked and cached: its splits, and mean and standard deviation of each channel."""

    splits: DatasetDict
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def _repr_html_(self) -> str:
        """For a notebook."""
        return f"<pre>{html.escape(class_table(self.splits))}</pre>"


def prepare(*, recipe: str | None = None, **flags: Any) -> Prepared:
    """Checks and caches a data set, as `finetune` reads it; `flags` are those of `hf-mae prepare`."""
    (options,) = fill("prepare", recipe, **flags).parts
    try:
        return _prepare(options)
    except NoRoom as error:
        raise UsageError(
            f"{error} Make room, or pass --cache false to check the images without keeping them."
        ) from None


def _prepare(options: PreparationArguments) -> Prepared:
    splits = load_splits(options, options.seed, check=decode_and_keep(options) if options.cache else None)
    mean, std = parse_mean_std(options.mean_std, options.transforms, splits.get("train"), options.image_size)
    if options.cache:
        edge = options.kept_shortest_edge(options.image_size)
        transform = training_transform(options.transforms, options.image_size, mean, std, cache_shortest_edge=edge)
        processor = image_processor(options.transforms, options.image_size, mean, std)
        for split, dataset in splits.items():
            resize = transform.resize if split == "train" else ProcessorPrefix(processor)
            if resize is not None:
                quality = options.cache_quality if split == "train" else None
                CachedPixels(dataset, resize, options.preprocessing_num_workers, quality)
    return Prepared(splits, mean, std)


def decode_and_keep(options: PreparationArguments) -> Check:
    """A check of the files that keeps what it decodes, so that each is decoded once: as training images or as held-out
    ones, as far as the data set's own splits say which. (Neither resize depends on mean and std.)"""
    workers, size = options.preprocessing_num_workers, options.image_size
    edge = options.kept_shortest_edge(size)
    for_training = training_transform(options.transforms, size, cache_shortest_edge=edge).resize
    for_evaluation = ProcessorPrefix(image_processor(options.transforms, size))

    def check(entries: list[Entry]) -> Verdict:
        paths = [entry.path for entry in entries]
        held_out = [place for place, entry in enumerate(entries) if entry.split != "train"]
        training = [place for place, entry in enumerate(entries) if entry.split == "train"]
        later = keep_decoded([paths[place] for place in held_out], for_evaluation, workers)
        ours = [paths[place] for place in training]
        if for_training is None:
            first = whole_verdict(ours, workers)
        else:
            first = keep_decoded(ours, for_training, workers, options.cache_quality)
        bad: dict[int, str] = {}
        digests = [""] * len(paths)
        for places, verdict in ((training, first), (held_out, later)):
            bad |= {places[place]: reason for place, reason in verdict.bad.items()}
            for place, digest in zip(places, verdict.digests):
                digests[place] = digest
        return Verdict(dict(sorted(bad.items())), digests)

    return check
