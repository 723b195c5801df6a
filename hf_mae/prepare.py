"""`hf-mae prepare`: check a data set, decode it once into the cache, and print its table."""

import logging
from dataclasses import dataclass

import numpy as np

from .arguments import DataArguments
from .data import EvaluationImages, TrainingImages, image_processor, load_splits, training_transform
from .data.check import unreadable_images
from .data.folders import Check, Entry
from .data.images import ProcessorPrefix, keep_decoded
from .data.transforms import parse_mean_std
from .recipe import parse
from .runs import set_up_logging

logger = logging.getLogger(__name__)


@dataclass
class PreparationArguments(DataArguments):
    """The data arguments of `finetune`, and the two of its others that the cache depends on."""

    image_size: int = 224
    seed: int = 0


def class_table(splits) -> str:
    """Images by class and split."""
    names = next(iter(splits.values())).features["labels"].names
    counts = {split: np.bincount(dataset["labels"][:], minlength=len(names)) for split, dataset in splits.items()}
    width = max(len("class"), *(len(name) for name in names))
    lines = [f"{'class':<{width}}  " + "  ".join(f"{split:>10}" for split in counts)]
    lines += [
        f"{name:<{width}}  " + "  ".join(f"{by_class[index]:10d}" for by_class in counts.values())
        for index, name in enumerate(names)
    ]
    lines.append(f"{'all':<{width}}  " + "  ".join(f"{by_class.sum():10d}" for by_class in counts.values()))
    return "\n".join(lines)


def decode_and_keep(options: PreparationArguments) -> Check:
    """A check of the files that keeps what it decodes, so that each is decoded once: as training images or as held-out
    ones, as far as the data set's own splits say which. (Neither resize depends on mean and std.)"""
    workers, size = options.preprocessing_num_workers, options.image_size
    edge = options.kept_shortest_edge(size)
    for_training = training_transform(options.transforms, size, cache_shortest_edge=edge).resize
    for_evaluation = ProcessorPrefix(image_processor(options.transforms, size))

    def check(entries: list[Entry]) -> dict[str, str]:
        training = [entry.path for entry in entries if entry.split == "train"]
        held_out = [entry.path for entry in entries if entry.split != "train"]
        if for_training is None:
            bad = unreadable_images(training, workers)
        else:
            bad = keep_decoded(training, for_training, workers)
        return bad | keep_decoded(held_out, for_evaluation, workers)

    return check


def main(argv: list[str]) -> int:
    (options,), _ = parse(
        "prepare",
        "Check and cache a data set, and print its table.",
        [PreparationArguments],
        argv,
        required=("data_dir",),
    )
    set_up_logging(True)
    splits = load_splits(options, options.seed, check=decode_and_keep(options) if options.cache else None)
    print(class_table(splits))
    mean, std = parse_mean_std(options.mean_std, options.transforms, splits.get("train"), options.image_size)
    print(f"mean {' '.join(f'{value:.4f}' for value in mean)}, std {' '.join(f'{value:.4f}' for value in std)}")
    if options.cache:
        edge = options.kept_shortest_edge(options.image_size)
        transform = training_transform(options.transforms, options.image_size, mean, std, cache_shortest_edge=edge)
        processor = image_processor(options.transforms, options.image_size, mean, std)
        for split, dataset in splits.items():
            if split == "train":
                TrainingImages(dataset, transform, num_workers=options.preprocessing_num_workers)
            else:
                EvaluationImages(dataset, processor, num_workers=options.preprocessing_num_workers)
    return 0
