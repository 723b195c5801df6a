"""Datasets of a fine-tuning run: cached, augmented for training, and preprocessed for evaluation."""

import logging
from typing import Any

import torch
from datasets import DatasetDict

from ..conversion.safety import is_timm
from ..data.images.processors import to_timm_processor
from ..data.images.torch_datasets import EvalDataset, TrainDataset
from ..data.images.transforms import image_processor, parse_mean_std, training_transform
from ..data.splits import EVAL_SPLITS
from ..settings.data import DataArguments

logger = logging.getLogger(__name__)


def prepare_datasets(
    splits: DatasetDict, options: DataArguments, config: Any, image_size: int, seed: int, sampling: str
) -> tuple[TrainDataset, dict[str, EvalDataset], Any]:
    """Builds the training set, the evaluation sets by split, and the image processor of a model.

    Args:
        splits: with `train`.
        options: transforms and cache.
        config: configuration of the model.
        image_size: input size of the model, in pixels.
        seed: seed of the augmentation.
        sampling: sampling of the classes, as in `TrainDataset`.
    """
    mean, std = parse_mean_std(options.mean_std, options.transforms, splits["train"], image_size)
    processor = image_processor(options.transforms, image_size, mean, std)
    if is_timm(config):
        processor = to_timm_processor(processor, config)
    transform = training_transform(
        options.transforms,
        image_size,
        mean,
        std,
        auto_augment=options.auto_augment,
        random_erasing=options.random_erasing,
        cache_shortest_edge=options.resolve_cache_shortest_edge(image_size),
    )
    if options.transforms == "imagenet" and transform.resize is not None:
        logger.info(
            "Random crops are taken from cached images with a shortest edge of at most %d pixels. To crop the original "
            "images (slower), pass --cache_shortest_edge 0.",
            transform.resize.shortest_edge,
        )
    workers = options.preprocessing_num_workers
    train_dataset = TrainDataset(
        splits["train"],
        transform,
        seed,
        options.cache,
        workers,
        batched=torch.cuda.is_available(),
        quality=options.cache_quality,
        sampling=sampling,
    )
    eval_datasets = {
        split: EvalDataset(splits[split], processor, options.cache, workers) for split in EVAL_SPLITS if split in splits
    }
    return train_dataset, eval_datasets, processor
