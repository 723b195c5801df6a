"""`evaluate`: metrics of a fine-tuned model on a split, also on several processes (accelerate launch)."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict

from ..compat.accelerate import create_inference_accelerator
from ..compat.deepspeed import disable_zero3_init
from ..data.class_map import read_class_map
from ..data.cohort import describe_cohort
from ..data.exclusion_log import ExclusionReason, record_excluded, track_exclusions
from ..data.fingerprint import data_fingerprint
from ..data.images.torch_datasets import EvalDataset
from ..data.sources.class_order import has_ordered_classes
from ..data.sources.split_loading import load_splits
from ..data.splits import get_split
from ..errors import UsageError, warn
from ..evaluation.calibration import IDENTITY_TEMPERATURE, Calibration, Temperature, calibration_gain
from ..evaluation.operating_points import find_positive_ids
from ..inference.forward import predict_logits
from ..inference.tta import apply_tta
from ..inference.uncertainty import fit_uncertainty
from ..models.ensemble import first_member, read_ensemble_members
from ..models.introspection import get_model_facts, get_non_mae_network
from ..models.loading import class_names, load_classifier
from ..reporting.split_results import score_with_intervals, write_split_results
from ..runs.environment import get_environment
from ..runs.record import DataSource, RunRecord
from ..runs.record_io import write_record
from ..runs.split_consistency import align_with_training_split, read_training_counts, was_trained_on_ordered_classes
from ..runs.temperature import fit_and_write_temperature, read_temperature
from ..runs.training_record import find_precision
from ..runs.uncertainty_io import write_uncertainty
from ..settings.evaluation import EvaluationArguments
from ..settings.parse import Settings
from .command import command
from .messages import WorkflowMessage

logger = logging.getLogger(__name__)


@command("evaluate")
def evaluate(settings: Settings) -> RunRecord | None:
    """Evaluates a fine-tuned model on a split; with `output_dir`, writes predictions, figures and the record.

    Returns:
        The record; None on processes other than the main one.
    """
    options = settings.options
    options = align_with_training_split(options, settings.overrides, str(options.model_name_or_path))
    with disable_zero3_init():
        model, processor = load_classifier(str(options.model_name_or_path))
    names = class_names(model)
    class_map = read_class_map(options.class_map, names) if options.class_map else None
    class_map_names = class_map.class_names if class_map else names
    temperature = read_temperature(options.temperature, options.tta, class_map_names) if options.temperature else None
    unmapped: dict[str, int] = {}
    accelerator = create_inference_accelerator(options.bf16)
    with track_exclusions() as exclusion_log, accelerator.local_main_process_first():
        splits = load_splits(options, options.seed, label_names=None if class_map else names)
        for split in splits.keys() - {options.split}:
            record_excluded(ExclusionReason.UNUSED_SPLIT, len(splits[split]), detail=split)
        if class_map:
            splits, unmapped = class_map.relabel(splits, str(options.data_dir), options.split)
            names = class_map.class_names
    _check_same_classes(options, splits, names)
    find_positive_ids(options.positive or [], names)
    images = EvalDataset(get_split(splits, options.split, options.data_dir), processor, cache=False)
    model.to(accelerator.device)
    with apply_tta(model, options.tta):
        logits = predict_logits(model, images, accelerator, options.batch_size, options.dataloader_num_workers)
    if not accelerator.is_main_process:
        return None
    logits = class_map.merge_logits(logits) if class_map else logits
    record = RunRecord(
        kind="evaluate",
        base=str(options.model_name_or_path),
        data=DataSource.from_settings(options, options.seed, data_fingerprint(splits)),
        images={split: len(dataset) for split, dataset in splits.items()},
        environment=get_environment(),
        settings=settings.overrides,
        classes=names,
        averaged_views=options.tta,
        ordered=has_ordered_classes(options) or was_trained_on_ordered_classes(str(options.model_name_or_path)),
        study=describe_cohort(exclusion_log, {options.split: get_split(splits, options.split, options.data_dir)}),
        unmapped_images=unmapped,
        network=get_non_mae_network(first_member(model)),
        model=get_model_facts(first_member(model)),
        members=[member.source for member in read_ensemble_members(str(options.model_name_or_path))],
        precision=find_precision(accelerator, first_member(model)),
    )
    if options.fit_uncertainty:
        with accelerator.autocast(), apply_tta(model, options.tta):
            _fit_uncertainty(options, model, splits, images, logits)
    return _score_and_write(options, record, images, logits, temperature)


def _fit_uncertainty(
    options: EvaluationArguments,
    model: Any,
    splits: DatasetDict,
    images: EvalDataset,
    logits: np.ndarray,
) -> None:
    """Fits and writes prediction sets and, if there is another train split, an out-of-distribution detector."""
    train_dataset = splits["train"] if "train" in splits and options.split != "train" else None
    if train_dataset is None:
        warn(logger, WorkflowMessage.OOD_NOT_FITTED, data=options.data_dir)
    uncertainty = fit_uncertainty(
        model,
        train_dataset,
        images,
        logits,
        class_names(model),
        options.split,
        options.tta,
        options.batch_size,
    )
    write_uncertainty(Path(str(options.output_dir)), uncertainty)


def _check_same_classes(options: EvaluationArguments, splits: DatasetDict, names: list[str]) -> None:
    classes = splits[next(iter(splits))].features["labels"].names
    sources = {"model": options.model_name_or_path, "benchmark": options.benchmark}
    if differing := sorted(set(names) ^ set(classes)):
        raise UsageError(WorkflowMessage.CLASSES_DIFFER, names=differing, **sources)
    if classes != names:
        raise UsageError(WorkflowMessage.CLASS_ORDER_DIFFERS, **sources)


def _score_and_write(
    options: EvaluationArguments,
    base_record: RunRecord,
    images: EvalDataset,
    logits: np.ndarray,
    temperature: Temperature | None,
) -> RunRecord:
    """Computes the metrics, after temperature scaling if requested, and writes them to the output folder."""
    folder, labels = Path(options.output_dir) if options.output_dir else None, images.labels
    calibration, used = None, temperature or IDENTITY_TEMPERATURE
    if options.fit_temperature and folder:
        counts = read_training_counts(base_record.base, base_record.classes)
        calibration = fit_and_write_temperature(
            folder, logits, labels, options.split, options.tta, base_record.classes, counts
        )
        used = calibration.get_temperature(base_record.classes) if calibration else used
    elif temperature is not None:
        gain = calibration_gain(logits, labels, temperature)
        calibration = Calibration(**temperature.to_dict(base_record.classes), **gain)
    if folder:
        scores = write_split_results(
            folder, options.split, images, logits, labels, base_record.classes, base_record.ordered, options, used
        )
    else:
        scaled = used.scale_logits(logits)
        scores = score_with_intervals(images, scaled, labels, base_record.classes, base_record.ordered, options)
    record = replace(base_record, scores={options.split: scores}, calibration=calibration)
    if folder:
        write_record(record, folder)
    return record
