"""`hf-mae shard`: a data set into tar shards, or a check of shards."""

from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("shard")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..data.cache_eviction import format_bytes
    from ..errors import pluralize
    from ..workflows.shard import shard
    from .logs import configure_logging

    configure_logging(asked.quiet)
    found = shard(recipe=asked.recipe, **asked.flags)
    images = ", ".join(f"{split} {count:,}" for split, count in found.images_by_split.items())
    whole = " whole" if asked.flags.get("check") else ""
    print(f"{found.folder}: {pluralize(found.num_shards, 'shard')}{whole}, {images} images, {format_bytes(found.size)}")
    return 0
