"""`audit`: finds near-duplicate images within and across labels and splits, and probable label errors."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from datasets import Dataset

from ..data.checks.audit import AuditImage, list_audit_images
from ..data.checks.duplicates import find_near_duplicates
from ..data.sources.split_loading import read_splits
from ..data.sources.unlabelled import load_unlabelled
from ..errors import UsageError
from ..evaluation.confident_learning import label_issues
from ..reporting.audit import AuditFindings, write_audit
from ..reporting.label_issues import LabelFindings, LabelIssueRow, write_label_issues
from ..runs.out_of_fold import OutOfFoldPredictions, read_out_of_fold_predictions
from ..settings.audit import AuditArguments
from ..settings.parse import Settings
from .command import command
from .messages import WorkflowMessage

logger = logging.getLogger(__name__)

DATA_SOURCE_FIELDS = ("data_dir", "manifest", "benchmark", "fold", "agreement", "corrections", "class_order")


@command("audit")
def audit(settings: Settings) -> AuditFindings | LabelFindings:
    """Finds near-duplicates, or with `runs` probable label errors, and writes CSVs and contact sheets."""
    options = settings.options
    if options.runs:
        return _audit_labels(options)
    images = list_audit_images(_load_splits(options))
    pairs = find_near_duplicates(
        [image.path for image in images],
        max_distance=options.max_hash_distance,
        min_similarity=options.min_similarity,
        min_detail=options.min_detail,
        num_workers=options.preprocessing_num_workers,
    )
    return write_audit(Path(options.output_dir), images, pairs, options.max_sheets)


def _load_splits(options: AuditArguments) -> Mapping[str, Dataset]:
    if not options.unlabelled:
        return read_splits(options, allow_split_overlap=True)
    images = load_unlabelled(
        str(options.data_dir), options.on_bad_image, options.preprocessing_num_workers, frames=options.frames
    )
    return {"all": images}


def _audit_labels(options: AuditArguments) -> LabelFindings:
    """Finds probable label errors; the data is not changed."""
    predictions = read_out_of_fold_predictions(options.runs or [])
    if not options.data_dir:
        fields = {name: getattr(predictions.record.data, name) for name in DATA_SOURCE_FIELDS}
        options = dataclasses.replace(options, **fields)
        logger.info("Using the dataset of the runs: %s", options.data_dir)
    splits = read_splits(options, label_names=predictions.class_names)
    images = {image.file_name: image for image in list_audit_images(splits)}
    evaluated = [images[name] for name in predictions.scores if name in images]
    _check_same_images(options, predictions, evaluated)
    scores = np.array([predictions.scores[image.file_name] for image in evaluated])
    labels = np.array([predictions.class_names.index(image.label) for image in evaluated])
    rows = [
        LabelIssueRow(
            image=evaluated[issue.index],
            quality=issue.quality,
            suggested_label=predictions.class_names[issue.suggested],
            label_score=float(scores[issue.index, labels[issue.index]]),
            suggested_label_score=float(scores[issue.index, issue.suggested]),
        )
        for issue in label_issues(scores, labels)
    ]
    folder = Path(str(options.output_dir))
    num_shown = write_label_issues(folder, rows, options.max_sheets)
    return LabelFindings(folder, len(evaluated), len(images), rows, num_shown)


def _check_same_images(options: AuditArguments, predictions: OutOfFoldPredictions, evaluated: list[AuditImage]) -> None:
    if not evaluated:
        raise UsageError(WorkflowMessage.AUDIT_IMAGES_DIFFER, data_dir=options.data_dir)
    for image in evaluated:
        if predictions.labels[image.file_name] != image.label:
            raise UsageError(
                WorkflowMessage.AUDIT_LABEL_DIFFERS,
                file_name=image.file_name,
                predicted_label=predictions.labels[image.file_name],
                label=image.label,
                data_dir=options.data_dir,
            )
