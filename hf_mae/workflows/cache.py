"""`cache`: what is kept between runs."""

from typing import Any

from ..data import cache_eviction
from ..errors import CommandLineError
from ..settings.parse import parse_settings


def cache(**flags: Any) -> list[cache_eviction.CacheEntry] | list[str] | int:
    """Lists, checks or removes what is kept; `flags` are those of `hf-mae cache`.

    Returns:
        Its parts; of `check` the damaged files, which are removed; of `remove` the bytes that are free now.
    """
    (options,) = parse_settings("cache", None, **flags).arguments
    if options.action == "check":
        return [str(path) for path in cache_eviction.remove_damaged_files()]
    if options.action == "remove":
        if not options.name:
            raise CommandLineError("remove needs the NAME of a part (see hf-mae cache), or all.")
        return cache_eviction.remove_cache_entry(options.name)
    return cache_eviction.list_cache_entries()
