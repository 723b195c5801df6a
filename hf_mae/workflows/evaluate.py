"""`evaluate`: the scores of a fine-tuned model on a split, through the Trainer (so under accelerate too)."""

import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import DatasetDict

from ..compat.deepspeed import whole_weights
from ..data.class_map import read_class_map
from ..data.fingerprint import data_fingerprint
from ..data.images import EvaluationImages
from ..data.ledger import followed
from ..data.manifests import manifest_of
from ..data.sources import is_ordered, load_splits
from ..data.splits import chosen_split
from ..data.study import study_of
from ..errors import UsageError
from ..evaluation.calibration import Temperature, before_and_after
from ..evaluation.doubt import fit_doubt
from ..evaluation.scores import score_split
from ..models.ensemble import first_member
from ..models.loading import class_names, load_classifier
from ..models.parts import other_network
from ..models.views import averaged_views
from ..reporting.splits import write_split
from ..runs.doubt import write_doubt
from ..runs.environment import environment
from ..runs.own_splits import as_the_run_split, training_counts, was_ordered
from ..runs.record import DataSource, RunRecord
from ..runs.record_files import write_record
from ..runs.temperature import fit_and_write, read_temperature
from ..settings.arguments import FinetuningArguments
from ..settings.evaluation import EvaluationArguments
from ..settings.fill import fill
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
    settings = fill("evaluate", recipe, **flags)
    (options,) = settings.parts
    options = as_the_run_split(options, settings.given, str(options.model_name_or_path))
    _refuse_what_cannot_be_fitted(options)
    with whole_weights():
        model, processor = load_classifier(str(options.model_name_or_path))
    names = class_names(model)
    joined = read_class_map(options.class_map, names) if options.class_map else None
    shown = joined.names if joined else names
    scale = read_temperature(options.temperature, options.tta, shown) if options.temperature else None
    left_out: dict[str, int] = {}
    with (
        tempfile.TemporaryDirectory() as unused,
        followed() as ledger,
    ):  # the Trainer wants an output folder, and leaves nothing in it
        args = _trainer_arguments(options, unused)
        with args.main_process_first(desc="reading the images"):
            splits = load_splits(options, options.seed, label_names=None if joined else names)
        if joined:
            splits, left_out = joined.relabel(splits, str(options.data_dir))
            names = joined.names
        _refuse_other_classes(options, splits, names)
        images = EvaluationImages(chosen_split(splits, options.split, options.data_dir), processor, cache=False)
        trainer = MaeFinetuner(model=model, args=args)
        with averaged_views(model, options.tta):
            output: Any = trainer.predict(images)
    if not trainer.is_world_process_zero():
        return None
    logits = joined.merge(output.predictions) if joined else output.predictions
    base = RunRecord(
        kind="evaluate",
        base=str(options.model_name_or_path),
        data=DataSource.of(options, options.seed, data_fingerprint(splits)),
        images={split: len(dataset) for split, dataset in splits.items()},
        environment=environment(),
        settings=settings.given,
        classes=names,
        averaged_views=options.tta,
        ordered=is_ordered(options) or was_ordered(str(options.model_name_or_path)),
        study=study_of(ledger, splits, manifest_of(options)),
        left_out=left_out,
        network=other_network(first_member(model)),
    )
    if options.fit_doubt:
        _fit_doubt(options, model, splits, images, logits, output.label_ids)
    return _scored(options, base, images, logits, output.label_ids, scale)


def _refuse_what_cannot_be_fitted(options: EvaluationArguments) -> None:
    if options.fit_temperature and (options.temperature or not options.output_dir):
        raise UsageError("--fit_temperature writes temperature.json into --output_dir, and goes without --temperature.")
    if options.fit_doubt and (options.class_map or not options.output_dir):
        raise UsageError("--fit_doubt writes doubt.json into --output_dir, and goes without --class_map.")


def _fit_doubt(
    options: EvaluationArguments,
    model: Any,
    splits: DatasetDict,
    images: EvaluationImages,
    logits: np.ndarray,
    labels: np.ndarray,
) -> None:
    """Writes what the model does not know; without training images beside those that are evaluated, no outliers."""
    training = splits["train"] if "train" in splits and options.split != "train" else None
    if training is None:
        logger.warning("%s has no training images: no outliers will be told.", options.data_dir)
    data = images.processor, training, images, logits, labels
    with averaged_views(model, options.tta):
        doubt = fit_doubt(model, *data, class_names(model), options.split, options.tta, options.batch_size)
    write_doubt(Path(str(options.output_dir)), doubt)


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


def _refuse_other_classes(options: EvaluationArguments, splits: DatasetDict, names: list[str]) -> None:
    classes = splits[next(iter(splits))].features["labels"].names
    if classes != names:
        raise UsageError(
            f"{options.model_name_or_path} has other classes than {options.benchmark}, or in another order: "
            f"{', '.join(sorted(set(names) ^ set(classes))) or 'the order differs'}."
        )


def _scored(
    options: EvaluationArguments,
    base: RunRecord,
    images: EvaluationImages,
    logits: np.ndarray,
    labels: np.ndarray,
    scale: Temperature | None,
) -> RunRecord:
    """Scores, with the temperature that was asked for, and what an output folder holds of them."""
    folder = Path(options.output_dir) if options.output_dir else None
    calibrated: dict[str, Any] | None = None
    if options.fit_temperature and folder:
        counts = training_counts(base.base, base.classes)
        calibrated = fit_and_write(folder, logits, labels, options.split, options.tta, base.classes, counts)
    elif scale is not None:
        calibrated = scale.facts(base.classes) | before_and_after(logits, labels, scale)
    if calibrated:
        logits = Temperature.of_facts(calibrated, base.classes).scaled(logits)
    if folder:
        scores = write_split(folder, options.split, images, logits, labels, base.classes, base.ordered)
    else:
        scores = score_split(logits, labels, base.classes, base.ordered)
    record = replace(base, scores={options.split: scores}, calibration=calibrated)
    if folder:
        write_record(record, folder)
    return record
