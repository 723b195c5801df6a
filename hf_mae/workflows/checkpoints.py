"""`checkpoints fetch`: a public checkpoint, downloaded and converted once."""

from ..errors import CommandLineError, did_you_mean
from ..models.model_zoo import PublicCheckpoint, load_checkpoint_catalogue, resolve_checkpoint


def find_checkpoint(name: str) -> PublicCheckpoint:
    """A line of the catalogue.

    Raises:
        CommandLineError: there is none of this name.
    """
    entries = load_checkpoint_catalogue()
    if name not in entries:
        raise CommandLineError(f"There is no checkpoint {name}{did_you_mean(name, entries)}.")
    return entries[name]


def fetch_checkpoint(name: str) -> str:
    """The folder of a public checkpoint's converted weights."""
    return resolve_checkpoint(find_checkpoint(name).name)
