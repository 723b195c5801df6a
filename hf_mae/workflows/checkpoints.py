"""`checkpoints`: looks up the public checkpoints, or downloads and converts one."""

from ..errors import CommandLineError, did_you_mean
from ..models.model_zoo import PublicCheckpoint, load_checkpoint_catalogue, resolve_checkpoint
from ..settings.parse import Settings
from .command import command
from .messages import WorkflowMessage


@command("checkpoints")
def checkpoints(settings: Settings) -> dict[str, PublicCheckpoint] | str:
    """Looks up the public checkpoints by name, or the one to show; `fetch` downloads and converts one if necessary.

    Returns:
        The entries; for `fetch`, the folder of the converted weights.
    """
    name, entries = settings.options.name, load_checkpoint_catalogue()
    if settings.options.action == "list":
        return entries
    if name not in entries:
        raise CommandLineError(WorkflowMessage.UNKNOWN_CHECKPOINT, name=name, suggestion=did_you_mean(name, entries))
    return resolve_checkpoint(name) if settings.options.action == "fetch" else {name: entries[name]}
