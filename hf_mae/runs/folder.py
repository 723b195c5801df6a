"""The output folder of a run: new, resumed, or not to be written over."""

import logging
import shutil
from pathlib import Path

from ..errors import UsageError
from ..settings.arguments import ReferenceTraining
from ..training.checkpoints import is_complete, last_checkpoint
from .record import DataSource
from .record_files import begun_record

logger = logging.getLogger(__name__)


def settle_resume(args: ReferenceTraining) -> str | None:
    """The checkpoint to resume from, or None for a new run; refuses to write over a run that is there.

    `--resume_from_checkpoint` takes a folder, or `last` for the newest complete checkpoint of the output folder.
    """
    asked = args.resume_from_checkpoint
    if asked in ("last", "auto", "True", "true", True):
        found = last_checkpoint(args.folder)
        if found is None:
            logger.info("%s holds no checkpoint to resume from: training starts anew.", args.output_dir)
            return None
        logger.info("Resuming from %s", found)
        return str(found)
    if asked and asked not in ("False", "false"):
        if not is_complete(Path(asked)):
            raise UsageError(f"{asked} is no complete checkpoint: pass a checkpoint-N folder, or `last`.")
        return asked
    folder = args.folder
    if folder.is_file():
        raise UsageError(f"{folder} is a file: --output_dir names a folder.")
    if folder.is_dir() and not args.overwrite_output_dir:
        marks = [*folder.glob("checkpoint-*"), *folder.glob("model.safetensors")]
        if marks:
            raise UsageError(
                f"{folder} holds a run already ({marks[0].name}): pass --resume_from_checkpoint last to go on with it, "
                "--overwrite_output_dir to start anew there, or another --output_dir."
            )
    if args.overwrite_output_dir and args.process_index == 0:
        for old in folder.glob("checkpoint-*"):
            shutil.rmtree(old)
    return None


def refuse_other_data(folder: Path, now: DataSource) -> None:
    """Refuses to go on with a run on other images than it began with.

    Args:
        folder: of the run that is resumed.
        now: of the run that goes on with it, with a fingerprint.
    """
    before = begun_record(folder)
    if before is None or before.data.fingerprint is None or before.data.fingerprint == now.fingerprint:
        return
    options = ("data_dir", "manifest", "benchmark", "fold", "val_fraction", "train_fraction", "select_on", "seed")
    differing = [
        f"{name} {getattr(before.data, name)} then, {getattr(now, name)} now"
        for name in options
        if getattr(before.data, name) != getattr(now, name)
    ]
    why = "; ".join(differing) or "images were added, removed, changed or given another class"
    raise UsageError(
        f"{folder} holds a run on other images ({why}): a run goes on with the images that it began with. Put them "
        "back, or begin anew in another --output_dir."
    )
