"""`hf-mae shard`: a data set into tar shards, or a check of shards."""

from .flags import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("shard")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..data.room import in_words
    from ..errors import counted
    from ..workflows.shard import shard
    from .logs import show_logs

    show_logs(asked.quiet)
    found = shard(recipe=asked.recipe, **asked.flags)
    images = ", ".join(f"{split} {count:,}" for split, count in found.images.items())
    whole = " whole" if asked.flags.get("check") else ""
    print(f"{found.folder}: {counted(found.shards, 'shard')}{whole}, {images} images, {in_words(found.size)}")
    return 0
