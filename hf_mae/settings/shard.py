"""Settings of `shard`."""

from dataclasses import dataclass

from .data import DataSourceArguments
from .options import option


@dataclass
class ShardArguments(DataSourceArguments):
    """The dataset to pack and the size of the shards."""

    output_dir: str | None = option(None, "Output folder for the shards.", show_in_help=True, group="Output")
    unlabelled: bool = option(
        False,
        "Pack every image below the folder, without classes and splits (for pretrain).",
        show_in_help=True,
        group="Data",
    )
    shard_size: str = option("500MB", "Approximate size of a shard.", show_in_help=True, group="Output", metavar="SIZE")
    check: bool = option(False, "Check that existing shards in DATA are complete; write nothing.", show_in_help=True)
    seed: int = option(
        0,
        "Seed of the order of the images in the shards, and of the validation split.",
        group="Data",
        ge=0,
        le=2**32 - 1,
    )
