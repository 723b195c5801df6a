"""`audit`: near-duplicate images within and across labels and splits, and labels that may be wrong."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from ..data.audit import AuditImage, list_audit_images
from ..data.duplicates import find_near_duplicates
from ..data.split_loading import read_splits
from ..data.unlabelled import load_unlabelled
from ..errors import CommandLineError, UsageError
from ..evaluation.confident_learning import label_issues
from ..reporting.audit import AuditFindings, write_audit
from ..reporting.label_issues import LabelFindings, LabelIssueRow, write_label_issues
from ..runs.out_of_fold import OutOfFoldPredictions, read_out_of_fold_predictions
from ..settings.parse import parse_settings
from ..settings.studies import AuditArguments

logger = logging.getLogger(__name__)

DATA_SOURCE_FIELDS = ("data_dir", "manifest", "benchmark", "fold", "agreement", "corrections", "class_order")


def audit(*, recipe: str | None = None, **flags: Any) -> AuditFindings | LabelFindings:
    """Finds near-duplicates, or with `labels` labels that may be wrong, and writes CSVs and contact sheets.

    Args:
        recipe: a YAML file of flags; `flags` win over it.
        flags: the flags of `hf-mae audit`.
    """
    (options,) = parse_settings("audit", recipe, **flags).arguments
    if options.labels:
        return _audit_labels(options)
    if not options.data_dir:
        raise CommandLineError("missing: --data_dir (see hf-mae audit --help).")
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
    return {"all": load_unlabelled(str(options.data_dir), options.on_bad_image, options.preprocessing_num_workers)}


def _audit_labels(options: AuditArguments) -> LabelFindings:
    """Labels that may be wrong; nothing is changed or left out."""
    said = read_out_of_fold_predictions(options.labels or [])
    if not options.data_dir:
        known = {name: getattr(said.record.data, name) for name in DATA_SOURCE_FIELDS}
        options = dataclasses.replace(options, **known)
        logger.info("The images are those of the runs: %s", options.data_dir)
    images = {image.file_name: image for image in list_audit_images(read_splits(options, label_names=said.names))}
    judged = [images[name] for name in said.scores if name in images]
    _check_same_images(options, said, judged)
    scores = np.array([said.scores[image.file_name] for image in judged])
    labels = np.array([said.names.index(image.label) for image in judged])
    found = [
        LabelIssueRow(
            image=judged[issue.index],
            quality=issue.quality,
            suggested_label=said.names[issue.suggested],
            label_score=float(scores[issue.index, labels[issue.index]]),
            suggested_label_score=float(scores[issue.index, issue.suggested]),
        )
        for issue in label_issues(scores, labels)
    ]
    folder = Path(str(options.output_dir))
    shown = write_label_issues(folder, found, options.max_sheets)
    return LabelFindings(folder, len(judged), len(images), found, shown)


def _check_same_images(
    options: AuditArguments, out_of_fold_predictions: OutOfFoldPredictions, evaluated: list[AuditImage]
) -> None:
    if not evaluated:
        raise UsageError(f"{options.data_dir} has none of the images that the runs judged: is it another data set?")
    for image in evaluated:
        if out_of_fold_predictions.labels[image.file_name] != image.label:
            raise UsageError(
                f"{image.file_name} was {out_of_fold_predictions.labels[image.file_name]} when the runs judged it, and is {image.label} "
                f"in {options.data_dir}: pass the --corrections that they were trained with, or train them again."
            )
