"""`shard`: packs a dataset into tar shards with an index, or checks existing shards."""

from pathlib import Path

from datasets import DatasetDict

from ..data.sources.shard_writer import ShardSummary, verify_shards, write_shards
from ..data.sources.split_loading import read_splits
from ..data.sources.unlabelled import load_unlabelled
from ..files.locks import exclusive_lock
from ..settings.parse import Settings
from ..settings.shard import ShardArguments
from .command import command


@command("shard")
def shard(settings: Settings) -> ShardSummary:
    """Packs a dataset into shards, or checks shards."""
    options = settings.options
    if options.check:
        return verify_shards(Path(str(options.data_dir)))
    folder = Path(options.output_dir)
    splits = _load_splits_to_pack(options)
    with exclusive_lock(folder):
        return write_shards(splits, folder, options.shard_bytes, options.seed, options.preprocessing_num_workers)


def _load_splits_to_pack(options: ShardArguments) -> DatasetDict:
    if not options.unlabelled:
        return read_splits(options, options.seed)
    images = load_unlabelled(
        str(options.data_dir), options.on_bad_image, options.preprocessing_num_workers, frames=options.frames
    )
    return DatasetDict({"train": images})
