"""Record of a fine-tuning run: its facts before training, and those of the training."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import DatasetDict

from ..data.checks.contamination import find_pretraining_image_list, find_seen_in_pretraining, warn_about_contamination
from ..data.cohort import describe_cohort
from ..data.labelled_data import LabelledData
from ..data.splits import EVAL_SPLITS
from ..files.atomic import atomic_write_file
from ..models.introspection import get_model_facts, get_non_mae_network
from ..models.model_zoo import resolve_checkpoint
from ..settings.data import DataArguments
from ..settings.models import ModelArguments
from ..settings.parse import Settings
from ..training.finetuner import MaeFinetuner
from ..training.trainer import MaeTrainerBase
from .environment import get_environment
from .record import DataSource, RunRecord, Selection, SelectionRule
from .record_io import find_run_record, write_started_record
from .run_licences import find_licences
from .split_consistency import warn_if_teacher_saw_eval_data
from .training_record import describe_finetuning

CORRECTIONS_FILE = "corrections.csv"  # copy of the label corrections in the output folder


def start_record(data: LabelledData, settings: Settings, model: Any) -> RunRecord:
    """Builds the record of a run before training; the main process writes it.

    Args:
        settings: of the run; its `overrides` are recorded.
    """
    args, folder, is_main = settings.training, settings.training.folder, settings.training.process_index == 0
    seen = None
    if is_main:
        workers = settings.data.preprocessing_num_workers
        seen = _count_seen_in_pretraining(settings.model, data.splits, folder, workers)
    record = RunRecord(
        kind="finetune",
        base=settings.model.base,
        data=DataSource.from_settings(settings.data, args.seed, data.fingerprint),
        images={split: len(dataset) for split, dataset in data.splits.items()},
        environment=get_environment(),
        settings=settings.overrides,
        classes=data.class_names,
        ordered=data.ordered,
        study=describe_cohort(data.exclusion_log, data.splits),
        seen_in_pretraining=seen,
        network=get_non_mae_network(model),
        model=get_model_facts(model),
        licences=find_licences(settings.model.base, args.teacher) if is_main else [],
    )
    if args.teacher:
        warn_if_teacher_saw_eval_data(args.teacher, record)
    if is_main:
        write_started_record(record, folder)
        _copy_corrections(settings.data.corrections, folder)
    return record


def _count_seen_in_pretraining(
    options: ModelArguments, splits: DatasetDict, folder: Path, num_workers: int | None = None
) -> dict[str, int] | None:
    """Counts the evaluated images in the pre-training data of the checkpoint, by split; None if unknown.

    Args:
        options: the checkpoint.
        folder: the output folder, for the list of these images.
        num_workers: threads that decode images.
    """
    if options.random_weights:
        return None
    base = resolve_checkpoint(options.model_name_or_path or "")
    image_list = find_pretraining_image_list(base)
    if image_list is None:
        return None
    pretraining_record = find_run_record(image_list.parent)
    root = Path(pretraining_record.data.data_dir) if pretraining_record and pretraining_record.data.data_dir else None
    eval_splits = DatasetDict({split: splits[split] for split in EVAL_SPLITS if split in splits})
    matches = find_seen_in_pretraining(image_list, root, eval_splits, num_workers)
    return warn_about_contamination(base, matches, eval_splits, folder)


def _copy_corrections(path: str | None, folder: Path) -> None:
    """Copies the label corrections into the output folder; `path` may be that copy."""
    if path:
        with atomic_write_file(folder / CORRECTIONS_FILE) as temporary:
            shutil.copyfile(path, temporary)


def add_training(
    record: RunRecord, trainer: MaeFinetuner, output: Any, options: DataArguments, split: str | None
) -> RunRecord:
    """Adds the facts of a completed training to a record.

    Args:
        trainer: after training.
        output: result of `Trainer.train`.
        options: the transforms.
        split: split that selects the epoch.
    """
    training = describe_finetuning(trainer, output, options)
    return replace(record, train=training, selection=get_selection(trainer, split))


def get_selection(trainer: MaeTrainerBase, split: str | None) -> Selection:
    """Returns the selection of the weights of a completed training.

    Args:
        split: split that was evaluated after each epoch; None: none.
    """
    args: Any = trainer.args
    state = trainer.state
    facts: dict[str, Any] = {"ema_decay": args.ema_decay}
    if args.teacher:
        facts |= {"teacher": args.teacher, "teacher_weight": args.teacher_weight}
    if not (args.load_best_model_at_end and state.best_model_checkpoint):
        return Selection(SelectionRule.LAST_EPOCH, **facts)
    epochs = [entry["epoch"] for entry in state.log_history if entry["step"] == state.best_global_step]
    return Selection(
        SelectionRule.BEST_EPOCH,
        selection_split=split,
        metric=args.metric_for_best_model,
        checkpoint=state.best_model_checkpoint,
        epoch=epochs[-1] if epochs else None,
        **facts,
    )
