"""Record of a fine-tuning run: its facts before training, and those of the training."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.cohort import describe_cohort
from ..data.labelled_data import LabelledData
from ..data.sources.manifest import resolve_manifest
from ..files.atomic import atomic_write_file
from ..models.introspection import get_non_mae_network
from ..settings.parse import Settings
from ..training.finetuner import MaeFinetuner
from .contamination import count_seen_in_pretraining
from .environment import get_environment
from .record import DataSource, RunRecord, Training
from .record_io import write_started_record
from .selection import get_selection
from .split_consistency import warn_if_teacher_saw_eval_data

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
        seen = count_seen_in_pretraining(settings.model, data.splits, folder, workers)
    record = RunRecord(
        kind="finetune",
        base=settings.model.base,
        data=DataSource.from_settings(settings.data, args.seed, data.fingerprint),
        images={split: len(dataset) for split, dataset in data.splits.items()},
        environment=get_environment(),
        settings=settings.overrides,
        classes=data.class_names,
        ordered=data.ordered,
        study=describe_cohort(data.exclusion_log, data.splits, resolve_manifest(settings.data)),
        seen_in_pretraining=seen,
        network=get_non_mae_network(model),
    )
    if args.teacher:
        warn_if_teacher_saw_eval_data(args.teacher, record)
    if is_main:
        write_started_record(record, folder)
        _copy_corrections(settings.data.corrections, folder)
    return record


def _copy_corrections(path: str | None, folder: Path) -> None:
    """Copies the label corrections into the output folder; `path` may be that copy."""
    if path:
        with atomic_write_file(folder / CORRECTIONS_FILE) as temporary:
            shutil.copyfile(path, temporary)


def add_training(record: RunRecord, trainer: MaeFinetuner, output: Any, seconds: float, split: str | None) -> RunRecord:
    """Adds the facts of a completed training to a record.

    Args:
        trainer: after training.
        output: result of `Trainer.train`.
        seconds: training time of this process.
        split: split that selects the epoch.
    """
    training = Training.from_trainer(trainer.args, output, seconds)
    return replace(record, train=training, selection=get_selection(trainer, split))
