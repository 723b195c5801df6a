"""Label corrections: a CSV of reviewed labels, applied when the images are loaded."""

import csv
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import DatasetDict

from ...errors import UsageError, did_you_mean, pluralize
from ...files.atomic import restore_formula
from ..exclusion_log import ExclusionReason, record_excluded, record_relabelled
from ..messages import DataMessage

logger = logging.getLogger(__name__)

COLUMNS = ("file_name", "label", "decision")
KEEP, REMOVE = "keep", "remove"  # decisions, besides the names of classes


@dataclass(frozen=True)
class Correction:
    """The reviewed label of an image, and the decision: the name of a class, or `remove`."""

    label: str
    decision: str


def read_corrections(path: Path, class_names: list[str]) -> dict[str, Correction]:
    """Reads the decisions by file name; rows without a decision, or with `keep`, are skipped.

    Args:
        path: a CSV with the columns `COLUMNS`.
        class_names: the valid decisions, besides `keep` and `remove`.

    Raises:
        UsageError: If it is not such a file, or if a decision is not a class.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = [{name: restore_formula(cell or "") for name, cell in row.items() if name} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(DataMessage.CORRECTIONS_UNREADABLE, path=path, reason=reason) from None
    if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
        raise UsageError(DataMessage.CORRECTIONS_COLUMNS_MISSING, path=path, columns=missing)
    corrections: dict[str, Correction] = {}
    for number, row in enumerate(rows, 2):
        decision = (row["decision"] or "").strip()
        if decision.lower() in ("", KEEP):
            continue
        if decision not in class_names and decision.lower() != REMOVE:
            suggestion = did_you_mean(decision, class_names)
            raise UsageError(
                DataMessage.CORRECTION_INVALID, path=path, line=number, decision=decision, suggestion=suggestion
            )
        correction = Correction(row["label"] or "", decision if decision in class_names else REMOVE)
        if corrections.get(row["file_name"], correction) != correction:
            raise UsageError(DataMessage.CORRECTION_CONTRADICTORY, path=path, line=number, file_name=row["file_name"])
        corrections[row["file_name"]] = correction
    return corrections


def apply_label_corrections(splits: DatasetDict, path: str) -> DatasetDict:
    """Corrects labels and removes images; returns the changed splits.

    Raises:
        UsageError: If a decision is about an image that does not exist, or whose label has changed since.
    """
    names = next(iter(splits.values())).features["labels"].names
    corrections = read_corrections(Path(path), names)
    unused, num_changed, num_removed = dict(corrections), 0, 0
    result = DatasetDict()
    for split, dataset in splits.items():
        labels, keep = np.array(dataset["labels"][:]), np.ones(len(dataset), dtype=bool)
        for index, file_name in enumerate(dataset["file_name"][:]):
            if (correction := corrections.get(file_name)) is None:
                continue
            unused.pop(file_name, None)
            _check_current_label(path, file_name, correction, names[labels[index]])
            if correction.decision == REMOVE:
                keep[index] = False
            else:
                num_changed += names[labels[index]] != correction.decision
                labels[index] = names.index(correction.decision)
        num_removed += int((~keep).sum())
        feature = dataset.features["labels"]
        relabelled = dataset.remove_columns("labels").add_column("labels", labels.tolist(), feature=feature)
        if keep.any():
            result[split] = relabelled.select(np.flatnonzero(keep))
    if unused:
        raise UsageError(
            DataMessage.CORRECTIONS_UNKNOWN_IMAGES, path=path, count=len(unused), example=next(iter(unused))
        )
    logger.info("%s: %s relabelled, %d excluded.", path, pluralize(num_changed, "image"), num_removed)
    record_relabelled(Path(path).name, num_changed)
    record_excluded(ExclusionReason.REMOVED_BY_CORRECTIONS, num_removed, detail=Path(path).name)
    return result


def _check_current_label(path: str, file_name: str, correction: Correction, current_label: str) -> None:
    if correction.label not in (current_label, "") and correction.decision != current_label:
        raise UsageError(
            DataMessage.CORRECTIONS_OUTDATED,
            path=path,
            file_name=file_name,
            label=correction.label,
            current_label=current_label,
        )
