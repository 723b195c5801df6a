"""The splits that a run was trained and judged on, for whoever looks at its model again."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..models.ensemble import members_of
from ..settings.data import DataSourceArguments
from ..settings.evaluation import EvaluationArguments
from .record import CROSSVAL, DataSource, RunRecord
from .record_files import begun_record, read_record

logger = logging.getLogger(__name__)

# What decides which training images are held out.
OF_THE_SPLIT = (
    *("seed", "val_fraction", "select_on", "exclude_pairs", "group_column", "group_pattern", "class_level", "fold"),
)
CARVED = ("val_fraction", "select_on")


def as_the_run_split(options: EvaluationArguments, given: dict[str, Any], model: str) -> EvaluationArguments:
    """The options with the held-out shares of the run that trained a model, where it is the run's own data.

    A share that is drawn anew would hold training images, and be scored as if it had not been learnt by heart.

    Args:
        options: what is to be read.
        given: what of it recipe and flags gave.
        model: the model's folder (or a checkpoint in a run's).

    Raises:
        UsageError: another share was asked for than the run's, or the run held none out.
    """
    records = [record for record in runs_of(model) if _is_of(record.data, options)]
    if not records:
        return options
    if options.split not in ("validation", "selection") and not any(getattr(options, name) for name in CARVED):
        return options
    _refuse_drawn_fold(Path(model))
    own = _split_of(records[0])
    if any(_held_out_by(record) != _held_out_by(records[0]) for record in records):
        raise UsageError(
            f"The members of {model} had other images of this data held out, one from the other: what would be scored, "
            "some were trained on. Evaluate it on a test split, or on other data."
        )
    differing = [name for name in OF_THE_SPLIT if name in given and given[name] != own[name]]
    if differing:
        told = "; ".join(f"{name} {own[name]} then, {given[name]} now" for name in differing)
        raise UsageError(
            f"{model} was trained on these images, with other ones held out ({told}): what would be scored, it was "
            f"trained on. Leave --{' and --'.join(differing)} out, and the run's own split is used."
        )
    changed = {name: value for name, value in own.items() if getattr(options, name) != value}
    if changed:
        logger.info("As the run that trained it: %s", ", ".join(f"{name} {value}" for name, value in changed.items()))
    return dataclasses.replace(options, **changed)


def was_ordered(model: str) -> bool:
    """Whether the classes of a model are grades, by the run that trained it."""
    return any(record.ordered for record in runs_of(model))


def training_counts(model: str, names: list[str]) -> np.ndarray | None:
    """The images of each of these classes that a model was trained on, (classes,); None where that is not known."""
    return next((record.training_counts() for record in runs_of(model) if record.classes == names), None)


def runs_of(model: str | Path) -> list[RunRecord]:
    """The record of the run that trained a model, of an ensemble one for each member; those that are known."""
    folders = [Path(model) / member.folder for member in members_of(model)] or [Path(model)]
    return [record for record in map(_run_of, folders) if record is not None]


def held_out_otherwise(model: str, run: RunRecord) -> bool:
    """Whether a model, or a member of an ensemble, was trained on the data of a run with other images held out, as far
    as that is known."""
    own = [record for record in runs_of(model) if _is_of(record.data, run.data)]
    drawn = any(member.drawn_fold for member in members_of(model)) or drawn_folds(Path(model).parent) is not None
    return bool(own) and (drawn or any(_held_out_by(record) != _held_out_by(run) for record in own))


def _held_out_by(record: RunRecord) -> dict[str, Any]:
    """`_split_of`, as far as it matters: the seed draws shares alone."""
    split = _split_of(record)
    return split if any(split[name] for name in CARVED) else split | {"seed": None}


def _split_of(record: RunRecord) -> dict[str, Any]:
    """What decided which images the run held out."""
    own = {name: record.settings.get(name, _default(name)) for name in OF_THE_SPLIT}
    own["seed"] = record.data.seed if record.data.seed is not None else own["seed"]
    return own | {name: getattr(record.data, name) for name in (*CARVED, "fold")}


def _run_of(model: Path) -> RunRecord | None:
    """The record of the run that trained a model; None where there is none."""
    if not model.is_dir():
        return None
    folder = model.parent if model.name.startswith("checkpoint-") else model
    record = begun_record(folder)
    return record if record is not None and record.kind == "finetune" else None


def _refuse_drawn_fold(model: Path) -> None:
    """Refuses a run of a cross-validation with folds of its own: no options draw its fold again."""
    if any(member.drawn_fold for member in members_of(model)):
        raise UsageError(
            f"{model} holds runs of a cross-validation, whose validation images are each run's own fold: of any share "
            "of this data, some members were trained on. Evaluate it on a test split, or on other data."
        )
    if folds := drawn_folds(model.parent):
        raise UsageError(
            f"{model} is a run of a cross-validation of {folds} folds, whose validation images are its own "
            f"fold: they are scored in {model / 'predictions_validation.csv'}, and any other share of this data holds "
            "training images."
        )


def drawn_folds(folder: Path) -> str | None:
    """The number of folds, where a folder is that of a cross-validation that drew its folds itself."""
    found = read_record(folder, CROSSVAL).crossval if (folder / CROSSVAL).is_file() else None
    return found.folds if found is not None and found.folds != "official" else None


def _is_of(source: DataSource, other_source: DataSourceArguments | DataSource) -> bool:
    """Whether both are the same data."""
    if source.benchmark or other_source.benchmark:
        return source.benchmark == other_source.benchmark
    if not other_source.data_dir or not source.data_dir:
        return False
    one, other = Path(source.data_dir), Path(other_source.data_dir)
    return one.resolve() == other.resolve() if one.exists() and other.exists() else str(one) == str(other)


def _default(name: str) -> Any:
    return next(item.default for item in dataclasses.fields(EvaluationArguments) if item.name == name)
