"""What `--data_dir`, `--manifest` and `--benchmark` name -> a `DatasetDict`."""

import logging

import numpy as np
from datasets import DatasetDict

from ..arguments import DataSourceArguments
from ..errors import UsageError
from .archives import load_benchmark
from .benchmarks import find_benchmark
from .folders import listed, load_image_folder, stratified_share

logger = logging.getLogger(__name__)


def load_splits(source: DataSourceArguments, seed: int = 0, own_names: list[str] | None = None) -> DatasetDict:
    """The splits, with the classes in a checkpoint's own order where it has the same ones.

    Args:
        seed: of a held-out share.
        own_names: class names of the checkpoint, by class id.
    """
    if not 0.0 < source.train_fraction <= 1.0:
        raise UsageError(f"train_fraction must be above 0 and at most 1, not {source.train_fraction}.")
    splits = _load(source, seed, own_names)
    if source.train_fraction < 1.0 and "train" in splits:
        labels = splits["train"]["labels"][:]
        chosen = stratified_share(labels, source.train_fraction, seed, leave_one=False)
        splits["train"] = splits["train"].select(np.flatnonzero(chosen))
    return splits


def _load(source: DataSourceArguments, seed: int, own_names: list[str] | None) -> DatasetDict:
    if source.benchmark:
        return _load_benchmark(source, seed)
    if source.split_file or source.exclude_pairs:
        raise UsageError("--split_file and --exclude_pairs belong to a --benchmark.")
    options = {
        "manifest": source.manifest,
        "val_fraction": source.val_fraction,
        "seed": seed,
        "on_bad_image": source.on_bad_image,
        "num_workers": source.preprocessing_num_workers,
    }
    splits = load_image_folder(source.data_dir, **options)
    names = next(iter(splits.values())).features["labels"].names
    if own_names and own_names != names and set(own_names) == set(names):
        splits = load_image_folder(source.data_dir, **options, label_names=own_names)
    return splits


def _load_benchmark(source: DataSourceArguments, seed: int) -> DatasetDict:
    benchmark = find_benchmark(source.benchmark)
    if benchmark.split_files and source.val_fraction:
        raise UsageError(f"{source.benchmark} has official splits: leave out --val_fraction.")
    options = {} if benchmark.split_files or not source.val_fraction else {"val_fraction": source.val_fraction}
    data = load_benchmark(
        source.benchmark,
        source.data_dir,
        fold=source.fold,
        seed=seed,
        split_files=source.split_file,
        exclude_pairs=source.exclude_pairs,
        on_bad_image=source.on_bad_image,
        num_workers=source.preprocessing_num_workers,
        **options,
    )
    counts = ", ".join(f"{split} {len(dataset)}" for split, dataset in data.splits.items())
    published = "as published" if data.as_published else f"published: {benchmark.counts} (of fold 1)"
    logger.info(
        "%s: %s (%s); %d excluded, %d missing, %d other images in the archive",
        benchmark.title,
        counts,
        published,
        data.excluded,
        len(data.missing),
        data.extra,
    )
    if data.missing:
        logger.warning("Missing: %s", listed(sorted(data.missing), whole=True))
    logger.info("Licence of the data: %s. Please cite: %s", benchmark.licence, benchmark.citation)
    return data.splits
