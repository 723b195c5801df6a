"""The images of a pre-training: a dataset, or a stream whose length sets the number of updates."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from transformers.trainer_utils import SaveStrategy

from ..data.checks.contamination import ImageMatch, exclude_images, resolve_exclude_patterns
from ..data.fingerprint import data_fingerprint
from ..data.images.torch_datasets import EvalDataset, TrainDataset
from ..data.images.transforms import image_processor, parse_mean_std, pretraining_transform
from ..data.sources.streams import find_stream_files, stream_fingerprint
from ..data.sources.unlabelled import load_unlabelled
from ..errors import UsageError, pluralize
from ..settings.arguments import PretrainingArguments
from ..settings.data import PretrainingDataArguments
from .messages import TrainingMessage
from .streaming import ImageStream, check_enough_stream_files, load_first_images

WARMUP_FRACTION = 0.05  # of the updates of a stream of unknown length (40 of 800 epochs in the original code)
NUM_RECONSTRUCTIONS = 8  # images per figure of reconstructions


@dataclass(frozen=True)
class PretrainingData:
    """The images of a pre-training.

    Args:
        summary: description for the log.
        count: number of images; 0: unknown.
        fingerprint: fingerprint of the images.
        images: the images; None for a stream.
        files: files of the stream.
        excluded: excluded images.
        excluded_stems: stems of the file names that a stream skips.
    """

    summary: str
    count: int
    fingerprint: str
    images: Dataset | None = None
    files: tuple[str, ...] = ()
    excluded: tuple[ImageMatch, ...] = ()
    excluded_stems: frozenset[str] = frozenset()

    def first_pixel_values(self, processor: Any) -> torch.Tensor:
        """Returns the first images, preprocessed for a figure of reconstructions: (images, 3, height, width)."""
        images = load_first_images(list(self.files), NUM_RECONSTRUCTIONS) if self.images is None else self.images
        dataset = EvalDataset(images.select(range(min(NUM_RECONSTRUCTIONS, len(images)))), processor, cache=False)
        return torch.stack([dataset[index]["pixel_values"] for index in range(len(dataset))])


def find_pretraining_data(options: PretrainingDataArguments, args: PretrainingArguments) -> PretrainingData:
    """Finds the images. For a stream, sets the length of training and warm-up in updates."""
    if options.streaming:
        return _find_stream(options, args)
    with args.main_process_first(desc="reading the images"):
        images, excluded = _read_images(options)
        fingerprint = data_fingerprint({"train": images})
    return PretrainingData(pluralize(len(images), "image"), len(images), fingerprint, images, excluded=tuple(excluded))


def _read_images(options: PretrainingDataArguments) -> tuple[Dataset, list[ImageMatch]]:
    """Reads the training images; returns them and the excluded images."""
    workers = options.preprocessing_num_workers
    # Decode all images now if they are cached anyway. Otherwise damaged pixel data is detected during training.
    decode = options.cache_shortest_edge is not None
    images = load_unlabelled(str(options.data_dir), options.on_bad_image, workers, decode=decode, frames=options.frames)
    return exclude_images(images, options.exclude, options.exclude_by, workers) if options.exclude else (images, [])


def _find_stream(options: PretrainingDataArguments, args: PretrainingArguments) -> PretrainingData:
    source = str(options.data_dir)
    files, count = find_stream_files(source)
    check_enough_stream_files(files, args.world_size * max(args.dataloader_num_workers, 1), source)
    if args.max_steps <= 0 and not count:
        raise UsageError(TrainingMessage.STREAM_LENGTH_UNKNOWN, source=source)
    if count and args.max_steps <= 0:
        args.max_steps = math.ceil(args.num_train_epochs * count / args.images_per_update)
    if args.warmup_steps is None:
        default = WARMUP_FRACTION * args.max_steps if args.warmup_epochs else 0.0
        args.warmup_steps = round(args.warmup_epochs * count / args.images_per_update if count else default)
    args.ignore_data_skip = True  # the checkpoint has the state of each loader
    if args.save_strategy == "epoch":
        args.save_strategy, args.save_steps = SaveStrategy.STEPS, max(1, args.max_steps // 20)
    updates = f"{args.max_steps} updates, {args.warmup_steps} of them warm-up"
    summary = f"stream of {pluralize(len(files), 'file')}; {updates}"
    stems = frozenset(resolve_exclude_patterns(options.exclude)[0]) if options.exclude else frozenset()
    return PretrainingData(summary, count or 0, stream_fingerprint(files), files=tuple(files), excluded_stems=stems)


def prepare_pretraining_data(
    data: PretrainingData, options: PretrainingDataArguments, args: PretrainingArguments, image_size: int
) -> tuple[TrainDataset | ImageStream, Any]:
    """Builds the augmented training images, and the image processor of the model."""
    family = options.transforms
    mean, std = parse_mean_std(options.mean_std, family, data.images, image_size)
    processor = image_processor(family, image_size, mean, std)
    transform = pretraining_transform(family, image_size, mean, std, cache_shortest_edge=options.cache_shortest_edge)
    if data.images is None:
        where = args.process_index, args.world_size
        stream = ImageStream(list(data.files), transform, args.seed, *where, options.on_bad_image, data.excluded_stems)
        return stream, processor
    with args.main_process_first(desc="preparing the images"):
        dataset = TrainDataset(
            data.images,
            transform,
            args.seed,
            num_workers=options.preprocessing_num_workers,
            on_bad_image=options.on_bad_image,
            quality=options.cache_quality,
        )
    return dataset, processor
