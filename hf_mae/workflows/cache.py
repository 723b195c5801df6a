"""`cache`: what is kept between runs."""

from typing import Any

from ..data import room
from ..errors import CommandLineError
from ..settings.fill import fill


def cache(**flags: Any) -> list[room.Kept] | list[str] | int:
    """Lists, checks or removes what is kept; `flags` are those of `hf-mae cache`.

    Returns:
        Its parts; of `check` the damaged files, which are removed; of `remove` the bytes that are free now.
    """
    (options,) = fill("cache", None, **flags).parts
    if options.action == "check":
        return [str(path) for path in room.damaged()]
    if options.action == "remove":
        if not options.name:
            raise CommandLineError("remove needs the NAME of a part (see hf-mae cache), or all.")
        return room.remove(options.name)
    return room.parts()
