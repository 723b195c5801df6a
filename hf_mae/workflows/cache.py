"""`cache`: lists, checks or removes cached files."""

from typing import Any

from ..data.images import cache_eviction
from ..errors import CommandLineError
from ..settings.parse import parse_settings
from .messages import WorkflowMessage


def cache(**flags: Any) -> list[cache_eviction.CacheEntry] | list[str] | int:
    """Lists, checks or removes cached files; `flags` are those of `hf-mae cache`.

    Returns:
        The entries of the cache; for `check`, the damaged files (now removed); for `remove`, the number of freed bytes.
    """
    (options,) = parse_settings("cache", None, **flags).arguments
    if options.action == "check":
        return [str(path) for path in cache_eviction.remove_damaged_files()]
    if options.action == "remove":
        if not options.name:
            raise CommandLineError(WorkflowMessage.CACHE_NAME_MISSING)
        return cache_eviction.remove_cache_entry(options.name)
    return cache_eviction.list_cache_entries()
