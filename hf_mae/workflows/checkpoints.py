"""Public checkpoints: look up, download and convert."""

from ..errors import CommandLineError, did_you_mean
from ..models.model_zoo import PublicCheckpoint, load_checkpoint_catalogue, resolve_checkpoint
from .messages import WorkflowMessage


def find_checkpoint(name: str) -> PublicCheckpoint:
    """Looks up a public checkpoint.

    Raises:
        CommandLineError: If the name is unknown.
    """
    entries = load_checkpoint_catalogue()
    if name not in entries:
        raise CommandLineError(WorkflowMessage.UNKNOWN_CHECKPOINT, name=name, suggestion=did_you_mean(name, entries))
    return entries[name]


def fetch_checkpoint(name: str) -> str:
    """Downloads and converts a public checkpoint if necessary; returns the folder of the converted weights."""
    return resolve_checkpoint(find_checkpoint(name).name)
