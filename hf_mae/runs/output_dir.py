"""The output folder of a run: new, resumed, or not to be written over."""

import logging
import shutil
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from ..errors import UsageError
from ..files.locks import exclusive_lock
from ..settings.arguments import MaeTrainingArguments
from ..training.preemption import STOPPED_FILE
from ..training.resume import find_checkpoint_defect, find_last_checkpoint, require_optimizer_state
from .record import ALL_RESULTS, CROSSVAL, RUN_STARTED, DataSource
from .record_io import find_run_record

logger = logging.getLogger(__name__)

# What finetune, pretrain and what looks at their runs write into an output folder.
RUN_FILES = (
    *("checkpoint-*", "model*.safetensors*", "config.json", "preprocessor_config.json", "training_args.bin"),
    *("trainer_state.json", "temperature.json", "README.md", "recipe.yaml", "conversion.json"),
    *(
        ALL_RESULTS,
        CROSSVAL,
        RUN_STARTED,
        "results_*.json",
        "predictions_*.csv",
        "report.json",
        "report.md",
        "report.tex",
    ),
    *("learning_curves.*", "confusion_matrix_*", "per_class_f1_*", "precision_recall_*", "reliability_*", "roc_*"),
    *("risk_coverage_*", "doubt.json", "doubt.safetensors"),
    *("step-*.png", "pretraining_images.csv", "excluded_images.csv", "seen_in_pretraining.csv", STOPPED_FILE),
)


def resolve_resume_checkpoint(args: MaeTrainingArguments) -> str | None:
    """The checkpoint to resume from, or None for a new run; refuses to write over a run that is there.

    `--resume_from_checkpoint` takes a folder, or `last` for the newest complete checkpoint of the output folder.
    """
    asked = args.resume_from_checkpoint
    if asked in ("last", "auto", "True", "true", True):
        found = find_last_checkpoint(args.folder)
        if found is None:
            logger.info("%s holds no checkpoint to resume from: training starts anew.", args.output_dir)
            return None
        require_optimizer_state(found)
        logger.info("Resuming from %s", found)
        return str(found)
    if asked and asked not in ("False", "false"):
        if fault := find_checkpoint_defect(Path(asked)):
            raise UsageError(f"{asked} {fault}: pass a whole checkpoint-N folder, or `last`.")
        require_optimizer_state(Path(asked))
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
    return None


def lock_output_dir(args: MaeTrainingArguments) -> AbstractContextManager[None]:
    """The output folder for this run alone; the main process holds it for all."""
    return exclusive_lock(args.folder) if args.process_index == 0 else nullcontext()


def remove_old_run(args: MaeTrainingArguments) -> None:
    """With `--overwrite_output_dir`, removes what a run before has left, once it is settled that this one begins.

    Else a run that fails would leave the old one's results beside its own settings. Other files stay.
    """
    if not args.overwrite_output_dir or args.process_index != 0:
        return
    for pattern in RUN_FILES:
        for old in args.folder.glob(pattern):
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()


def check_same_data(folder: Path, source: DataSource) -> None:
    """Refuses to go on with a run on other images than it began with.

    Args:
        folder: of the run that is resumed.
        source: of the run that goes on with it, with a fingerprint.
    """
    before = find_run_record(folder)
    if before is None or before.data.fingerprint is None or before.data.fingerprint == source.fingerprint:
        return
    options = (
        "data_dir",
        "manifest",
        "benchmark",
        "fold",
        "val_fraction",
        "train_fraction",
        "selection_fraction",
        "seed",
    )
    differing = [
        f"{name} {getattr(before.data, name)} then, {getattr(source, name)} now"
        for name in options
        if getattr(before.data, name) != getattr(source, name)
    ]
    why = "; ".join(differing) or "images were added, removed, changed or given another class"
    raise UsageError(
        f"{folder} holds a run on other images ({why}): a run goes on with the images that it began with. Put them "
        "back, or begin anew in another --output_dir."
    )
