"""The output folder of a run: new, resumed, or not to be written over."""

import logging
import shutil
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from ..errors import UsageError
from ..files.locks import sole_writer
from ..settings.arguments import ReferenceTraining
from ..training.checkpoints import fault_of, last_checkpoint, refuse_without_optimizer
from ..training.preemption import MARK
from .record import ALL_RESULTS, BEGUN, CROSSVAL, DataSource
from .record_files import begun_record

logger = logging.getLogger(__name__)

# What finetune, pretrain and what looks at their runs write into an output folder.
WRITTEN = (
    *("checkpoint-*", "model*.safetensors*", "config.json", "preprocessor_config.json", "training_args.bin"),
    *("trainer_state.json", "temperature.json", "README.md", "recipe.yaml", "conversion.json"),
    *(ALL_RESULTS, CROSSVAL, BEGUN, "results_*.json", "predictions_*.csv", "report.json", "report.md", "report.tex"),
    *("learning_curves.*", "confusion_matrix_*", "per_class_f1_*", "precision_recall_*", "reliability_*", "roc_*"),
    *("risk_coverage_*", "doubt.json", "doubt.safetensors"),
    *("step-*.png", "pretraining_images.csv", "excluded_images.csv", "seen_in_pretraining.csv", MARK),
)


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
        refuse_without_optimizer(found)
        logger.info("Resuming from %s", found)
        return str(found)
    if asked and asked not in ("False", "false"):
        if fault := fault_of(Path(asked)):
            raise UsageError(f"{asked} {fault}: pass a whole checkpoint-N folder, or `last`.")
        refuse_without_optimizer(Path(asked))
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


def held(args: ReferenceTraining) -> AbstractContextManager[None]:
    """The output folder for this run alone; the main process holds it for all."""
    return sole_writer(args.folder) if args.process_index == 0 else nullcontext()


def clear_old_run(args: ReferenceTraining) -> None:
    """With `--overwrite_output_dir`, removes what a run before has left, once it is settled that this one begins.

    Else a run that fails would leave the old one's results beside its own settings. Other files stay.
    """
    if not args.overwrite_output_dir or args.process_index != 0:
        return
    for pattern in WRITTEN:
        for old in args.folder.glob(pattern):
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()


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
