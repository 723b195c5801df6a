"""`cache`: lists, checks or removes cached files."""

from ..data.images import cache_eviction
from ..settings.parse import Settings
from .command import command


@command("cache")
def cache(settings: Settings) -> list[cache_eviction.CacheEntry] | list[str] | int:
    """Lists, checks or removes cached files.

    Returns:
        The entries of the cache; for `check`, the damaged files (now removed); for `remove`, the number of freed bytes.
    """
    options = settings.options
    if options.action == "check":
        return [str(path) for path in cache_eviction.remove_damaged_files()]
    if options.action == "remove":
        return cache_eviction.remove_cache_entry(options.name)
    return cache_eviction.list_cache_entries()
