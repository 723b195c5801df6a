"""`checkpoints fetch`: a public checkpoint, downloaded and converted once."""

from ..errors import CommandLineError, nearest
from ..models.checkpoints import PublicCheckpoint, catalogue, resolve


def find_checkpoint(name: str) -> PublicCheckpoint:
    """A line of the catalogue.

    Raises:
        CommandLineError: there is none of this name.
    """
    entries = catalogue()
    if name not in entries:
        raise CommandLineError(f"There is no checkpoint {name}{nearest(name, entries)}.")
    return entries[name]


def fetch_checkpoint(name: str) -> str:
    """The folder of a public checkpoint's converted weights."""
    return resolve(find_checkpoint(name).name)
