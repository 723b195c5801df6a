"""Calibration of a run on the split that selected its epoch: temperature, prediction sets and outlier detection."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..compat.deepspeed import disable_zero3_init
from ..data.images.torch_datasets import EvalDataset
from ..data.splits import selection_split
from ..evaluation.conformal import evaluate_coverage
from ..inference.uncertainty import fit_uncertainty
from ..models.loading import load_classifier
from .record import RunRecord
from .temperature import fit_and_write_temperature
from .uncertainty_io import write_uncertainty


def calibrate_run(
    record: RunRecord,
    folder: Path,
    outputs: Mapping[str, Any],
    eval_datasets: Mapping[str, EvalDataset],
    train_dataset: Dataset,
    device: Any,
    batch_size: int,
) -> RunRecord:
    """Fits and writes the temperature, the prediction sets and the out-of-distribution detector of a saved model.

    Args:
        record: the record of the run.
        folder: the output folder, with the model.
        outputs: `predictions` (logits) and `label_ids` by split.
        eval_datasets: the images of the outputs, by split.
        train_dataset: the training images.
        device: device that computes the features.
        batch_size: images per forward pass.

    Returns:
        The record with the results; unchanged if no split selected the epoch.
    """
    split = selection_split(outputs)
    if split is None:
        return record
    logits, labels, classes = outputs[split].predictions, outputs[split].label_ids, record.classes
    calibration = fit_and_write_temperature(folder, logits, labels, split, False, classes, record.training_counts())
    with disable_zero3_init():
        model, processor = load_classifier(str(folder))  # independent of the engine of the training
    images = eval_datasets[split]
    uncertainty = fit_uncertainty(
        model.to(device), processor, train_dataset, images, logits, labels, classes, split, batch_size=batch_size
    )
    write_uncertainty(folder, uncertainty)
    coverage = None
    if "test" in outputs:
        test = outputs["test"]
        coverage = evaluate_coverage(uncertainty.conformal_sets, test.predictions, test.label_ids, "test", split)
    return replace(record, calibration=calibration, uncertainty=coverage)
