"""Output folder of a run: lock, resume, and protection against overwriting."""

import logging
import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from itertools import count
from pathlib import Path
from typing import Any

from ..errors import CommandLineError, UsageError
from ..files.locks import exclusive_lock
from ..settings.arguments import MaeTrainingArguments
from ..settings.messages import SettingsMessage
from ..settings.parse import Settings
from ..training.preemption import STOPPED_FILE
from ..training.resume import (
    check_model_matches_checkpoint,
    find_last_checkpoint,
    require_optimizer_state,
    validate_checkpoint,
)
from .messages import RunMessage
from .record import ALL_RESULTS, CROSSVAL, FIGURES_DIR, RUN_STARTED, DataSource
from .record_io import find_run_record

logger = logging.getLogger(__name__)

# Files that finetune, pretrain, and commands that read their runs write into an output folder.
RUN_FILES = (
    *("checkpoint-*", "model*.safetensors*", "config.json", "preprocessor_config.json", "training_args.bin"),
    *("trainer_state.json", "temperature.json", "README.md", "recipe.yaml", "conversion.json"),
    *(ALL_RESULTS, CROSSVAL, RUN_STARTED, "results_*.json", "predictions_*.csv", "predictions_*.parquet"),
    *("report.json", "report.md", "report.tex"),
    *(f"{FIGURES_DIR}/{name}" for name in ("learning_curves.*", "confusion_matrix_*", "per_class_f1_*", "roc_*")),
    *(f"{FIGURES_DIR}/{name}" for name in ("precision_recall_*", "reliability_*", "risk_coverage_*")),
    *("uncertainty.json", "uncertainty.safetensors"),
    *("step-*.png", "pretraining_images.csv", "excluded_images.csv", "seen_in_pretraining.csv", STOPPED_FILE),
)


def resolve_resume_checkpoint(args: MaeTrainingArguments) -> str | None:
    """Returns the checkpoint to resume from, or None for a new run.

    `--resume_from_checkpoint` is a folder, or `last` for the newest complete checkpoint of the output folder.

    Raises:
        UsageError: If the checkpoint cannot be resumed from, or the output folder contains a run.
    """
    requested = args.resume_from_checkpoint
    if requested in ("last", "auto", "True", "true", True):
        checkpoint = find_last_checkpoint(args.folder)
        if checkpoint is None:
            logger.info("%s has no checkpoint to resume from: training starts from the beginning.", args.output_dir)
            return None
        require_optimizer_state(checkpoint)
        logger.info("Resuming from %s", checkpoint)
        return str(checkpoint)
    if requested and requested not in ("False", "false"):
        try:
            validate_checkpoint(Path(requested))
        except UsageError as defect:
            raise UsageError(RunMessage.CHECKPOINT_UNUSABLE, defect=defect) from None
        require_optimizer_state(Path(requested))
        return requested
    folder = args.folder
    if folder.is_file():
        raise UsageError(RunMessage.OUTPUT_DIR_IS_A_FILE, path=folder)
    if folder.is_dir() and not args.overwrite_output_dir:
        if run_files := [*folder.glob("checkpoint-*"), *folder.glob("model.safetensors")]:
            raise UsageError(RunMessage.OUTPUT_DIR_CONTAINS_A_RUN, path=folder, file=run_files[0].name)
    return None


def add_default_output_dir(settings: Settings) -> Settings:
    """Adds a default output folder: runs/NAME of the data, or the first unused of runs/NAME-2, ...

    Raises:
        CommandLineError: If there are several processes, which cannot agree on a folder.
    """
    if settings.values.get("output_dir"):
        return settings
    if settings.training.world_size > 1:
        raise CommandLineError(SettingsMessage.OUTPUT_DIR_REQUIRED)
    name = settings.data.benchmark or Path(settings.data.data_dir).resolve().name or "run"
    candidates = (Path("runs") / (name if number == 1 else f"{name}-{number}") for number in count(1))
    return settings.replace(output_dir=str(next(folder for folder in candidates if not folder.exists())))


def check_recipe_data(expected: str | None, fingerprint: str) -> None:
    """Checks that the data are those of the run that wrote the recipe; `expected`: None: not known.

    Raises:
        UsageError: If the fingerprints differ.
    """
    if expected not in (None, fingerprint):
        raise UsageError(RunMessage.DATA_DIFFER_FROM_RECIPE)


def check_same_run(checkpoint: str, config: Any, source: DataSource) -> None:
    """Checks that a run resumes with the model and the images that it was started with.

    Args:
        checkpoint: folder to resume from.
        source: current data source, with a fingerprint.

    Raises:
        UsageError: If the model or the images differ.
    """
    check_model_matches_checkpoint(checkpoint, config)
    check_same_data(Path(checkpoint).parent, source)


def lock_output_dir(args: MaeTrainingArguments) -> AbstractContextManager[None]:
    """Locks the output folder within the block; the main process locks it for all processes."""
    return exclusive_lock(args.folder) if args.process_index == 0 else nullcontext()


def remove_old_run(args: MaeTrainingArguments) -> None:
    """With `--overwrite_output_dir`, removes the files of the previous run; other files stay.

    Call it after all checks, immediately before training. A failed run then does not leave old results next to its
    settings.
    """
    if not args.overwrite_output_dir or args.process_index != 0:
        return
    for pattern in RUN_FILES:
        for path in args.folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def check_same_data(folder: Path, source: DataSource) -> None:
    """Checks that a run resumes with the images that it was started with.

    Args:
        folder: folder of the run to resume.
        source: current data source, with a fingerprint.

    Raises:
        UsageError: If the images differ.
    """
    saved = find_run_record(folder)
    if saved is None or saved.data.fingerprint is None or saved.data.fingerprint == source.fingerprint:
        return
    changes = [
        f"{item.name} from {getattr(saved.data, item.name)} to {getattr(source, item.name)}"
        for item in fields(DataSource)
        if item.name != "fingerprint" and getattr(saved.data, item.name) != getattr(source, item.name)
    ]
    if changes:
        raise UsageError(RunMessage.DATA_OPTIONS_CHANGED, path=folder, changes=changes)
    raise UsageError(RunMessage.IMAGES_CHANGED, path=folder)
