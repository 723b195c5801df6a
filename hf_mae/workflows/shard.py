"""`shard`: packs a dataset into tar shards with an index, or checks existing shards."""

from pathlib import Path
from typing import Any

from datasets import DatasetDict

from ..data.sources.shard_writer import ShardSummary, verify_shards, write_shards
from ..data.sources.split_loading import read_splits
from ..data.sources.unlabelled import load_unlabelled
from ..errors import CommandLineError
from ..files.locks import exclusive_lock
from ..settings.data import parse_byte_size
from ..settings.parse import parse_settings
from ..settings.shard import ShardArguments
from .messages import WorkflowMessage


def shard(*, recipe: str | None = None, **flags: Any) -> ShardSummary:
    """Packs a dataset into shards, or checks shards; `flags` are those of `hf-mae shard`."""
    (options,) = parse_settings("shard", recipe, **flags).arguments
    if options.check:
        return verify_shards(Path(str(options.data_dir)))
    if not options.output_dir:
        raise CommandLineError(WorkflowMessage.SHARD_OUTPUT_MISSING)
    size = parse_byte_size(options.shard_size, "--shard_size")
    if not size:
        raise CommandLineError(WorkflowMessage.SHARD_SIZE_INVALID, value=options.shard_size)
    folder = Path(options.output_dir)
    splits = _load_splits_to_pack(options)
    with exclusive_lock(folder):
        return write_shards(splits, folder, size, options.seed, options.preprocessing_num_workers)


def _load_splits_to_pack(options: ShardArguments) -> DatasetDict:
    if not options.unlabelled:
        return read_splits(options, options.seed)
    images = load_unlabelled(str(options.data_dir), options.on_bad_image, options.preprocessing_num_workers)
    return DatasetDict({"train": images})
