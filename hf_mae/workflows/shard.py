"""`shard`: a data set into tar shards with an index, or shards that are read again and checked."""

from pathlib import Path
from typing import Any

from datasets import DatasetDict

from ..data.packing import Packed, check, pack
from ..data.sources import read_splits
from ..data.unlabelled import load_unlabelled
from ..errors import CommandLineError
from ..files.locks import sole_writer
from ..settings.data import bytes_of
from ..settings.fill import fill
from ..settings.sharing import ShardArguments


def shard(*, recipe: str | None = None, **flags: Any) -> Packed:
    """Packs a data set into shards, or checks shards; `flags` are those of `hf-mae shard`."""
    (options,) = fill("shard", recipe, **flags).parts
    if options.check:
        return check(Path(str(options.data_dir)))
    if not options.output_dir:
        raise CommandLineError("hf-mae shard needs the folder to write to, or --check for shards that are there.")
    size = bytes_of(options.shard_size, "--shard_size")
    if not size:
        raise CommandLineError(f"--shard_size is a size, as 500MB, not {options.shard_size}.")
    folder = Path(options.output_dir)
    splits = _read(options)
    with sole_writer(folder):
        return pack(splits, folder, size, options.seed, options.preprocessing_num_workers)


def _read(options: ShardArguments) -> DatasetDict:
    if not options.unlabelled:
        return read_splits(options, options.seed)
    images = load_unlabelled(str(options.data_dir), options.on_bad_image, options.preprocessing_num_workers)
    return DatasetDict({"train": images})
