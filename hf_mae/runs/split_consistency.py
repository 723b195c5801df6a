"""Keeps later evaluations of a model consistent with the splits of its training run."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np

from ..data.sources.tables import read_table
from ..errors import UsageError, warn
from ..models.ensemble import read_ensemble_members
from ..settings.data import DataSourceArguments
from ..settings.evaluation import EvaluationArguments
from .messages import RunMessage
from .predictions import PREDICTION_FILES
from .record import CROSSVAL, DataSource, RunRecord
from .record_io import find_run_record, read_record

logger = logging.getLogger(__name__)

# Options that determine which training images are held out.
SPLIT_SETTINGS = (
    *("seed", "val_fraction", "selection_fraction", "exclude_pairs"),
    *("group_column", "group_pattern", "class_level", "split_from", "fold"),
)
HOLDOUT_FRACTIONS = ("val_fraction", "selection_fraction")


def align_with_training_split(
    options: EvaluationArguments, explicit_values: dict[str, Any], model: str
) -> EvaluationArguments:
    """Replaces the split options by those of the run that trained the model, if it was trained on the same data.

    A new random split would contain training images, and its scores would be too good.

    Args:
        explicit_values: explicit options of recipe and flags.
        model: folder of the model, or a checkpoint in the folder of a run.

    Raises:
        UsageError: If the explicit options contradict the run, or the run has no held-out images that can be
            reproduced.
    """
    records = [record for record in find_training_records(model) if is_same_data(record.data, options)]
    if not records:
        return options
    if options.split not in ("validation", "selection") and not any(
        getattr(options, name) for name in HOLDOUT_FRACTIONS
    ):
        return options
    _check_not_random_fold(Path(model))
    settings = _split_settings(records[0])
    if any(_holdout_settings(record) != _holdout_settings(records[0]) for record in records):
        raise UsageError(RunMessage.HOLDOUTS_OF_MEMBERS_DIFFER, path=model)
    differing = [name for name in SPLIT_SETTINGS if name in explicit_values and explicit_values[name] != settings[name]]
    if differing:
        changes = "; ".join(f"{name} {settings[name]}, now {explicit_values[name]}" for name in differing)
        flags = " and ".join(f"--{name}" for name in differing)
        raise UsageError(RunMessage.HOLDOUT_DIFFERS, path=model, changes=changes, flags=flags)
    changed = {name: value for name, value in settings.items() if getattr(options, name) != value}
    if changed:
        values = ", ".join(f"{name} {value}" for name, value in changed.items())
        logger.info("Using the split of the run that trained the model: %s", values)
    return dataclasses.replace(options, **changed)


def was_trained_on_ordered_classes(model: str) -> bool:
    """Whether the run that trained a model used ordered classes."""
    return any(record.ordered for record in find_training_records(model))


def read_training_counts(model: str, names: list[str]) -> np.ndarray | None:
    """Reads the number of training images of a model for each of these classes, (classes,); None if unknown."""
    return next((record.training_counts() for record in find_training_records(model) if record.classes == names), None)


def find_training_records(model: str | Path) -> list[RunRecord]:
    """Finds the records of the run that trained a model, or of all members of an ensemble, as far as available."""
    folders = [Path(model) / member.folder for member in read_ensemble_members(model)] or [Path(model)]
    return [record for record in map(_find_training_record, folders) if record is not None]


def holdout_differs(model: str, run: RunRecord) -> bool:
    """Whether a model, or a member of an ensemble, is known to be trained on the data of a run with other images held
    out."""
    records = [record for record in find_training_records(model) if is_same_data(record.data, run.data)]
    has_random_folds = (
        any(member.random_fold for member in read_ensemble_members(model))
        or read_random_fold_count(Path(model).parent) is not None
    )
    differs = any(_holdout_settings(record) != _holdout_settings(run) for record in records)
    return bool(records) and (has_random_folds or differs)


def warn_if_teacher_saw_eval_data(teacher: str, run: RunRecord) -> None:
    """Warns if a teacher was trained on images that evaluate the student."""
    if holdout_differs(teacher, run):
        warn(logger, RunMessage.TEACHER_SAW_EVAL_DATA, teacher=teacher)


def _holdout_settings(record: RunRecord) -> dict[str, Any]:
    """Returns `_split_settings`; without the seed if no split is random."""
    split = _split_settings(record)
    return split if any(split[name] for name in HOLDOUT_FRACTIONS) else split | {"seed": None}


def _split_settings(record: RunRecord) -> dict[str, Any]:
    """Returns the values of the options that determined the held-out images of a run."""
    settings = {name: record.settings.get(name, getattr(EvaluationArguments, name)) for name in SPLIT_SETTINGS}
    settings["seed"] = record.data.seed if record.data.seed is not None else settings["seed"]
    return settings | {name: getattr(record.data, name) for name in (*HOLDOUT_FRACTIONS, "fold")}


def _find_training_record(model: Path) -> RunRecord | None:
    """Record of the run that trained a model; None if it is missing."""
    if not model.is_dir():
        return None
    folder = model.parent if model.name.startswith("checkpoint-") else model
    record = find_run_record(folder)
    return record if record is not None and record.kind == "finetune" else None


def _check_not_random_fold(model: Path) -> None:
    """Checks that a model is not from a cross-validation with random folds, which split options cannot reproduce."""
    if any(member.random_fold for member in read_ensemble_members(model)):
        raise UsageError(RunMessage.MEMBERS_ARE_CROSSVAL_FOLDS, path=model)
    if folds := read_random_fold_count(model.parent):
        predictions = model / PREDICTION_FILES[1].format(split="validation")
        raise UsageError(RunMessage.RUN_IS_CROSSVAL_FOLD, path=model, folds=folds, predictions=predictions)


def read_random_fold_count(folder: Path) -> str | None:
    """Reads the number of folds, if the folder is a cross-validation with random folds."""
    summary = read_record(folder, CROSSVAL).crossval if (folder / CROSSVAL).is_file() else None
    return summary.folds if summary is not None and summary.folds != "official" else None


def is_same_data(source: DataSource, other_source: DataSourceArguments | DataSource) -> bool:
    """Whether both are the same benchmark, or the same folder, in whatever way its path is written; two manifests
    without common images are different data."""
    if have_disjoint_manifests(source, other_source):
        return False
    if source.benchmark or other_source.benchmark:
        return source.benchmark == other_source.benchmark
    if not other_source.data_dir or not source.data_dir:
        return False
    path, other_path = Path(source.data_dir), Path(other_source.data_dir)
    if path.exists() and other_path.exists():
        return path.resolve() == other_path.resolve()
    return str(path) == str(other_path)


def have_disjoint_manifests(source: DataSource, other_source: DataSourceArguments | DataSource) -> bool:
    """Whether both have manifests, and these have no image in common; False if one cannot be read any more."""
    if not source.manifest or not other_source.manifest or source.manifest == other_source.manifest:
        return False
    try:
        names, other_names = (
            {str(row["file_name"]) for row in read_table(Path(path))}
            for path in (source.manifest, other_source.manifest)
        )
    except (UsageError, OSError, KeyError):
        return False
    return names.isdisjoint(other_names)
