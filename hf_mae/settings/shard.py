"""Settings of `shard`."""

from dataclasses import dataclass

from ..errors import UsageError
from .data import DataSourceArguments, parse_byte_size
from .messages import SettingsMessage
from .options import option


@dataclass
class ShardArguments(DataSourceArguments):
    """The dataset to pack and the size of the shards."""

    output_dir: str | None = option(None, "Output folder for the shards.", group="Output")
    unlabelled: bool = option(
        False, "Pack every image below the folder, without classes and splits (for pretrain).", group="Data"
    )
    shard_size: str = option("500MB", "Approximate size of a shard.", group="Output", metavar="SIZE")
    check: bool = option(False, "Check that existing shards in DATA are complete; write nothing.")
    seed: int = option(
        0,
        "Seed of the order of the images in the shards, and of the validation split.",
        group="Data",
        ge=0,
        le=2**32 - 1,
        hidden=True,
    )

    def __post_init__(self) -> None:
        if not self.check and not self.output_dir:
            raise UsageError(SettingsMessage.SHARD_OUTPUT_MISSING)
        if not self.shard_bytes:
            raise UsageError(SettingsMessage.SHARD_SIZE_INVALID, value=self.shard_size)

    @property
    def shard_bytes(self) -> int | None:
        """The approximate size of a shard in bytes."""
        return parse_byte_size(self.shard_size, "--shard_size")
