"""The splits that a run was trained and judged on, for whoever looks at its model again."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..settings.data import DataSourceArguments
from ..settings.evaluation import EvaluationArguments
from .record import CROSSVAL, RunRecord
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
    record = _run_of(Path(model))
    if record is None or not _same_place(record, options):
        return options
    if options.split not in ("validation", "selection") and not any(getattr(options, name) for name in CARVED):
        return options
    _refuse_drawn_fold(Path(model))
    own = {name: record.settings.get(name, _default(options, name)) for name in OF_THE_SPLIT}
    own["seed"] = record.data.seed if record.data.seed is not None else own["seed"]
    own |= {name: getattr(record.data, name) for name in (*CARVED, "fold")}
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
    record = _run_of(Path(model))
    return record is not None and record.ordered


def _run_of(model: Path) -> RunRecord | None:
    """The record of the run that trained a model; None where there is none."""
    if not model.is_dir():
        return None
    folder = model.parent if model.name.startswith("checkpoint-") else model
    record = begun_record(folder)
    return record if record is not None and record.kind == "finetune" else None


def _refuse_drawn_fold(model: Path) -> None:
    """Refuses a run of a cross-validation with folds of its own: no options draw its fold again."""
    path = model.parent / CROSSVAL
    if path.is_file() and (found := read_record(model.parent, CROSSVAL).crossval) and found.folds != "official":
        raise UsageError(
            f"{model} is a run of a cross-validation of {found.folds} folds, whose validation images are its own "
            f"fold: they are scored in {model / 'predictions_validation.csv'}, and any other share of this data holds "
            "training images."
        )


def _same_place(record: RunRecord, options: DataSourceArguments) -> bool:
    if record.data.benchmark or options.benchmark:
        return record.data.benchmark == options.benchmark
    if not options.data_dir or not record.data.data_dir:
        return False
    one, other = Path(record.data.data_dir), Path(options.data_dir)
    return one.resolve() == other.resolve() if one.exists() and other.exists() else str(one) == str(other)


def _default(options: DataSourceArguments, name: str) -> Any:
    return next(item.default for item in dataclasses.fields(options) if item.name == name)
