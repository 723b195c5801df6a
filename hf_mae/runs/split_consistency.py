"""The splits that a run was trained and judged on, for whoever looks at its model again."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..models.ensemble import read_ensemble_members
from ..settings.data import DataSourceArguments
from ..settings.evaluation import EvaluationArguments
from .record import CROSSVAL, DataSource, RunRecord
from .record_io import find_run_record, read_record

logger = logging.getLogger(__name__)

# What decides which training images are held out.
SPLIT_SETTINGS = (
    *(
        "seed",
        "val_fraction",
        "selection_fraction",
        "exclude_pairs",
        "group_column",
        "group_pattern",
        "class_level",
        "fold",
    ),
)
HOLDOUT_FRACTIONS = ("val_fraction", "selection_fraction")


def align_with_training_split(
    options: EvaluationArguments, explicit_values: dict[str, Any], model: str
) -> EvaluationArguments:
    """The options with the held-out shares of the run that trained a model, where it is the run's own data.

    A share that is drawn anew would hold training images, and be scored as if it had not been learnt by heart.

    Args:
        options: what is to be read.
        explicit_values: what of it recipe and flags gave.
        model: the model's folder (or a checkpoint in a run's).

    Raises:
        UsageError: another share was asked for than the run's, or the run held none out.
    """
    records = [record for record in find_training_records(model) if _is_same_data(record.data, options)]
    if not records:
        return options
    if options.split not in ("validation", "selection") and not any(
        getattr(options, name) for name in HOLDOUT_FRACTIONS
    ):
        return options
    _check_not_random_fold(Path(model))
    own = _split_settings(records[0])
    if any(_holdout_settings(record) != _holdout_settings(records[0]) for record in records):
        raise UsageError(
            f"The members of {model} had other images of this data held out, one from the other: what would be scored, "
            "some were trained on. Evaluate it on a test split, or on other data."
        )
    differing = [name for name in SPLIT_SETTINGS if name in explicit_values and explicit_values[name] != own[name]]
    if differing:
        told = "; ".join(f"{name} {own[name]} then, {explicit_values[name]} now" for name in differing)
        raise UsageError(
            f"{model} was trained on these images, with other ones held out ({told}): what would be scored, it was "
            f"trained on. Leave --{' and --'.join(differing)} out, and the run's own split is used."
        )
    changed = {name: value for name, value in own.items() if getattr(options, name) != value}
    if changed:
        logger.info("As the run that trained it: %s", ", ".join(f"{name} {value}" for name, value in changed.items()))
    return dataclasses.replace(options, **changed)


def was_trained_on_ordered_classes(model: str) -> bool:
    """Whether the classes of a model are grades, by the run that trained it."""
    return any(record.ordered for record in find_training_records(model))


def read_training_counts(model: str, names: list[str]) -> np.ndarray | None:
    """The images of each of these classes that a model was trained on, (classes,); None where that is not known."""
    return next((record.training_counts() for record in find_training_records(model) if record.classes == names), None)


def find_training_records(model: str | Path) -> list[RunRecord]:
    """The record of the run that trained a model, of an ensemble one for each member; those that are known."""
    folders = [Path(model) / member.folder for member in read_ensemble_members(model)] or [Path(model)]
    return [record for record in map(_find_training_record, folders) if record is not None]


def holdout_differs(model: str, run: RunRecord) -> bool:
    """Whether a model, or a member of an ensemble, was trained on the data of a run with other images held out, as far
    as that is known."""
    own = [record for record in find_training_records(model) if _is_same_data(record.data, run.data)]
    drawn = (
        any(member.random_fold for member in read_ensemble_members(model))
        or read_random_fold_count(Path(model).parent) is not None
    )
    return bool(own) and (drawn or any(_holdout_settings(record) != _holdout_settings(run) for record in own))


def _holdout_settings(record: RunRecord) -> dict[str, Any]:
    """`_split_of`, as far as it matters: the seed draws shares alone."""
    split = _split_settings(record)
    return split if any(split[name] for name in HOLDOUT_FRACTIONS) else split | {"seed": None}


def _split_settings(record: RunRecord) -> dict[str, Any]:
    """What decided which images the run held out."""
    own = {name: record.settings.get(name, _default_value(name)) for name in SPLIT_SETTINGS}
    own["seed"] = record.data.seed if record.data.seed is not None else own["seed"]
    return own | {name: getattr(record.data, name) for name in (*HOLDOUT_FRACTIONS, "fold")}


def _find_training_record(model: Path) -> RunRecord | None:
    """The record of the run that trained a model; None where there is none."""
    if not model.is_dir():
        return None
    folder = model.parent if model.name.startswith("checkpoint-") else model
    record = find_run_record(folder)
    return record if record is not None and record.kind == "finetune" else None


def _check_not_random_fold(model: Path) -> None:
    """Refuses a run of a cross-validation with folds of its own: no options draw its fold again."""
    if any(member.random_fold for member in read_ensemble_members(model)):
        raise UsageError(
            f"{model} holds runs of a cross-validation, whose validation images are each run's own fold: of any share "
            "of this data, some members were trained on. Evaluate it on a test split, or on other data."
        )
    if folds := read_random_fold_count(model.parent):
        raise UsageError(
            f"{model} is a run of a cross-validation of {folds} folds, whose validation images are its own "
            f"fold: they are scored in {model / 'predictions_validation.csv'}, and any other share of this data holds "
            "training images."
        )


def read_random_fold_count(folder: Path) -> str | None:
    """The number of folds, where a folder is that of a cross-validation that drew its folds itself."""
    found = read_record(folder, CROSSVAL).crossval if (folder / CROSSVAL).is_file() else None
    return found.folds if found is not None and found.folds != "official" else None


def _is_same_data(source: DataSource, other_source: DataSourceArguments | DataSource) -> bool:
    """Whether both are the same data."""
    if source.benchmark or other_source.benchmark:
        return source.benchmark == other_source.benchmark
    if not other_source.data_dir or not source.data_dir:
        return False
    one, other = Path(source.data_dir), Path(other_source.data_dir)
    return one.resolve() == other.resolve() if one.exists() and other.exists() else str(one) == str(other)


def _default_value(name: str) -> Any:
    return next(item.default for item in dataclasses.fields(EvaluationArguments) if item.name == name)
