"""Labels that were looked through by a person: a CSV of decisions, applied when the images are read."""

import csv
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import DatasetDict

from ..errors import UsageError, did_you_mean, pluralize
from .exclusion_log import record_excluded, record_relabelled

logger = logging.getLogger(__name__)

COLUMNS = ("file_name", "label", "decision")
KEEP, REMOVE = "keep", "remove"  # decisions beside the names of classes


@dataclass(frozen=True)
class Correction:
    """A decision: the label that was looked at, and what is done (the name of a class, or `remove`)."""

    label: str
    decision: str


def read_corrections(path: Path, class_names: list[str]) -> dict[str, Correction]:
    """Decisions by file name; rows without one, or with `keep`, are none.

    Args:
        class_names: of the classes.

    Raises:
        UsageError: it is no such file, or a decision is no class.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(
            f"--corrections {path} cannot be read ({getattr(error, 'strerror', None) or error})."
        ) from None
    if lacking := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
        raise UsageError(
            f"{path} is no list of corrections: it lacks the column {', '.join(lacking)} (hf-mae audit --labels writes "
            "one, whose column decision is for you to fill)."
        )
    found: dict[str, Correction] = {}
    for number, row in enumerate(rows, 2):
        decision = (row["decision"] or "").strip()
        if decision.lower() in ("", KEEP):
            continue
        if decision not in class_names and decision.lower() != REMOVE:
            raise UsageError(
                f"Line {number} of {path} decides {decision}, which is no class{did_you_mean(decision, class_names)}: write the "
                f"name of a class, {KEEP}, or {REMOVE}."
            )
        wanted = Correction(row["label"] or "", decision if decision in class_names else REMOVE)
        if found.get(row["file_name"], wanted) != wanted:
            raise UsageError(f"Line {number} of {path} decides on {row['file_name']} again, and otherwise.")
        found[row["file_name"]] = wanted
    return found


def apply_label_corrections(splits: DatasetDict, path: str) -> DatasetDict:
    """The splits with the labels that a person decided on, without the images that were taken out.

    Raises:
        UsageError: a decision is on an image that is not there, or that has another label by now.
    """
    names = next(iter(splits.values())).features["labels"].names
    decisions = read_corrections(Path(path), names)
    left, changed, removed = dict(decisions), 0, 0
    result = DatasetDict()
    for split, dataset in splits.items():
        labels, keep = np.array(dataset["labels"][:]), np.ones(len(dataset), dtype=bool)
        for index, file_name in enumerate(dataset["file_name"][:]):
            if (decision := decisions.get(file_name)) is None:
                continue
            left.pop(file_name, None)
            _check_current_label(path, file_name, decision, names[labels[index]])
            if decision.decision == REMOVE:
                keep[index] = False
            else:
                changed += names[labels[index]] != decision.decision
                labels[index] = names.index(decision.decision)
        removed += int((~keep).sum())
        feature = dataset.features["labels"]
        relabelled = dataset.remove_columns("labels").add_column("labels", labels.tolist(), feature=feature)
        if keep.any():
            result[split] = relabelled.select(np.flatnonzero(keep))
    if left:
        raise UsageError(
            f"{path} decides on {pluralize(len(left), 'image')} that the data does not have, {next(iter(left))} among "
            "them: is it of another data set, or are its file names others?"
        )
    logger.info("As %s says: %s another label, %s left out.", path, pluralize(changed, "image", "has", "have"), removed)
    record_relabelled(Path(path).name, changed)
    record_excluded(f"left out by {Path(path).name}", removed)
    return result


def _check_current_label(path: str, file_name: str, correction: Correction, current_label: str) -> None:
    if correction.label not in (current_label, "") and correction.decision != current_label:
        raise UsageError(
            f"{path} was decided when {file_name} was {correction.label}, and it is {current_label} now: look through the labels "
            "again (hf-mae audit --labels)."
        )
