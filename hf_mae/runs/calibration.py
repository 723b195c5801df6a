"""Calibration of a run on the split that selected its epoch: temperature, prediction sets and outlier detection."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
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
    logits: Mapping[str, np.ndarray],
    eval_datasets: Mapping[str, EvalDataset],
    train_dataset: Dataset,
    device: Any,
    batch_size: int,
) -> RunRecord:
    """Fits and writes the temperature, the prediction sets and the out-of-distribution detector of a saved model.

    Args:
        logits: (images, classes) by split.
        eval_datasets: the images, by split.

    Returns:
        The record with the results; unchanged if no split selected the epoch.
    """
    split = selection_split(logits)
    if split is None:
        return record
    images, classes = eval_datasets[split], record.classes
    calibration = fit_and_write_temperature(
        folder, logits[split], images.labels, split, False, classes, record.training_counts()
    )
    with disable_zero3_init():
        model, _ = load_classifier(str(folder))  # independent of the engine of the training
    uncertainty = fit_uncertainty(
        model.to(device), train_dataset, images, logits[split], classes, split, batch_size=batch_size
    )
    write_uncertainty(folder, uncertainty)
    coverage = None
    if "test" in logits:
        test = eval_datasets["test"]
        coverage = evaluate_coverage(
            uncertainty.conformal_sets, logits["test"], test.labels, "test", split, groups=test.groups
        )
    return replace(record, calibration=calibration, uncertainty=coverage)
