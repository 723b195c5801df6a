"""`evaluate`: the scores of a fine-tuned model on a split, through the Trainer (so under accelerate too)."""

import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import DatasetDict

from ..compat.deepspeed import disable_zero3_init
from ..data.class_map import read_class_map
from ..data.cohort import describe_cohort
from ..data.exclusion_log import track_exclusions
from ..data.fingerprint import data_fingerprint
from ..data.manifests import resolve_manifest
from ..data.split_loading import has_ordered_classes, load_splits
from ..data.splits import get_split
from ..data.torch_datasets import EvalDataset
from ..errors import UsageError
from ..evaluation.calibration import Temperature, calibration_gain
from ..evaluation.scores import score_split
from ..evaluation.uncertainty import fit_uncertainty
from ..models.ensemble import first_member
from ..models.introspection import describe_non_mae_model
from ..models.loading import class_names, load_classifier
from ..models.tta import apply_tta
from ..reporting.split_results import write_split_results
from ..runs.environment import get_environment
from ..runs.record import DataSource, RunRecord
from ..runs.record_io import write_record
from ..runs.split_consistency import align_with_training_split, read_training_counts, was_trained_on_ordered_classes
from ..runs.temperature import fit_and_write_temperature, read_temperature
from ..runs.uncertainty_io import write_uncertainty
from ..settings.arguments import FinetuningArguments
from ..settings.evaluation import EvaluationArguments
from ..settings.parse import parse_settings
from ..training.finetuner import MaeFinetuner

logger = logging.getLogger(__name__)


def evaluate(*, recipe: str | None = None, **flags: Any) -> RunRecord | None:
    """Scores a fine-tuned model on a split; with `output_dir`, its predictions, figures and record go there.

    Args:
        recipe: a YAML file of flags; `flags` win over it.
        flags: the flags of `hf-mae evaluate`.

    Returns:
        What was found; None on processes other than the main one.
    """
    settings = parse_settings("evaluate", recipe, **flags)
    (options,) = settings.arguments
    options = align_with_training_split(options, settings.overrides, str(options.model_name_or_path))
    _check_fit_options(options)
    with disable_zero3_init():
        model, processor = load_classifier(str(options.model_name_or_path))
    names = class_names(model)
    joined = read_class_map(options.class_map, names) if options.class_map else None
    shown = joined.class_names if joined else names
    scale = read_temperature(options.temperature, options.tta, shown) if options.temperature else None
    left_out: dict[str, int] = {}
    with (
        tempfile.TemporaryDirectory() as unused,
        track_exclusions() as ledger,
    ):  # the Trainer wants an output folder, and leaves nothing in it
        args = _trainer_arguments(options, unused)
        with args.main_process_first(desc="reading the images"):
            splits = load_splits(options, options.seed, label_names=None if joined else names)
        if joined:
            splits, left_out = joined.relabel(splits, str(options.data_dir))
            names = joined.class_names
        _check_same_classes(options, splits, names)
        images = EvalDataset(get_split(splits, options.split, options.data_dir), processor, cache=False)
        trainer = MaeFinetuner(model=model, args=args)
        with apply_tta(model, options.tta):
            output: Any = trainer.predict(images)
    if not trainer.is_world_process_zero():
        return None
    logits = joined.merge_logits(output.predictions) if joined else output.predictions
    base = RunRecord(
        kind="evaluate",
        base=str(options.model_name_or_path),
        data=DataSource.from_settings(options, options.seed, data_fingerprint(splits)),
        images={split: len(dataset) for split, dataset in splits.items()},
        environment=get_environment(),
        settings=settings.overrides,
        classes=names,
        averaged_views=options.tta,
        ordered=has_ordered_classes(options) or was_trained_on_ordered_classes(str(options.model_name_or_path)),
        study=describe_cohort(ledger, splits, resolve_manifest(options)),
        unmapped_images=left_out,
        network=describe_non_mae_model(first_member(model)),
    )
    if options.fit_uncertainty:
        _fit_uncertainty(options, model, splits, images, logits, output.label_ids)
    return _score_and_write(options, base, images, logits, output.label_ids, scale)


def _check_fit_options(options: EvaluationArguments) -> None:
    if options.fit_temperature and (options.temperature or not options.output_dir):
        raise UsageError("--fit_temperature writes temperature.json into --output_dir, and goes without --temperature.")
    if options.fit_uncertainty and (options.class_map or not options.output_dir):
        raise UsageError("--fit_uncertainty writes doubt.json into --output_dir, and goes without --class_map.")


def _fit_uncertainty(
    options: EvaluationArguments,
    model: Any,
    splits: DatasetDict,
    images: EvalDataset,
    logits: np.ndarray,
    labels: np.ndarray,
) -> None:
    """Writes what the model does not know; without training images beside those that are evaluated, no outliers."""
    training = splits["train"] if "train" in splits and options.split != "train" else None
    if training is None:
        logger.warning("%s has no training images: no outliers will be told.", options.data_dir)
    data = images.processor, training, images, logits, labels
    with apply_tta(model, options.tta):
        doubt = fit_uncertainty(model, *data, class_names(model), options.split, options.tta, options.batch_size)
    write_uncertainty(Path(str(options.output_dir)), doubt)


def _trainer_arguments(options: EvaluationArguments, output_dir: str) -> FinetuningArguments:
    return FinetuningArguments(
        output_dir=output_dir,
        per_device_eval_batch_size=options.batch_size,
        dataloader_num_workers=options.num_workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.accelerator.is_available(),
        bf16=options.bf16,
        report_to="none",
    )


def _check_same_classes(options: EvaluationArguments, splits: DatasetDict, names: list[str]) -> None:
    classes = splits[next(iter(splits))].features["labels"].names
    if classes != names:
        raise UsageError(
            f"{options.model_name_or_path} has other classes than {options.benchmark}, or in another order: "
            f"{', '.join(sorted(set(names) ^ set(classes))) or 'the order differs'}."
        )


def _score_and_write(
    options: EvaluationArguments,
    base_record: RunRecord,
    images: EvalDataset,
    logits: np.ndarray,
    labels: np.ndarray,
    temperature: Temperature | None,
) -> RunRecord:
    """Scores, with the temperature that was asked for, and what an output folder holds of them."""
    folder = Path(options.output_dir) if options.output_dir else None
    calibrated: dict[str, Any] | None = None
    if options.fit_temperature and folder:
        counts = read_training_counts(base_record.base, base_record.classes)
        calibrated = fit_and_write_temperature(
            folder, logits, labels, options.split, options.tta, base_record.classes, counts
        )
    elif temperature is not None:
        calibrated = temperature.to_dict(base_record.classes) | calibration_gain(logits, labels, temperature)
    if calibrated:
        logits = Temperature.from_dict(calibrated, base_record.classes).scale_logits(logits)
    if folder:
        scores = write_split_results(
            folder, options.split, images, logits, labels, base_record.classes, base_record.ordered
        )
    else:
        scores = score_split(logits, labels, base_record.classes, base_record.ordered)
    record = replace(base_record, scores={options.split: scores}, calibration=calibrated)
    if folder:
        write_record(record, folder)
    return record
