"""Labels that were looked through by a person: a CSV of decisions, applied when the images are read."""

import csv
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import DatasetDict

from ..errors import UsageError, counted, nearest
from .ledger import note_left_out, note_relabelled

logger = logging.getLogger(__name__)

COLUMNS = ("file_name", "label", "decision")
KEEP, REMOVE = "keep", "remove"  # decisions beside the names of classes


@dataclass(frozen=True)
class Correction:
    """A decision: the label that was looked at, and what is done (the name of a class, or `remove`)."""

    label: str
    decision: str


def read_corrections(path: Path, names: list[str]) -> dict[str, Correction]:
    """Decisions by file name; rows without one, or with `keep`, are none.

    Args:
        names: of the classes.

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
        if decision not in names and decision.lower() != REMOVE:
            raise UsageError(
                f"Line {number} of {path} decides {decision}, which is no class{nearest(decision, names)}: write the "
                f"name of a class, {KEEP}, or {REMOVE}."
            )
        wanted = Correction(row["label"] or "", decision if decision in names else REMOVE)
        if found.get(row["file_name"], wanted) != wanted:
            raise UsageError(f"Line {number} of {path} decides on {row['file_name']} again, and otherwise.")
        found[row["file_name"]] = wanted
    return found


def corrected(splits: DatasetDict, path: str) -> DatasetDict:
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
            _refuse_another_label(path, file_name, decision, names[labels[index]])
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
            f"{path} decides on {counted(len(left), 'image')} that the data does not have, {next(iter(left))} among "
            "them: is it of another data set, or are its file names others?"
        )
    logger.info("As %s says: %s another label, %s left out.", path, counted(changed, "image", "has", "have"), removed)
    note_relabelled(Path(path).name, changed)
    note_left_out(f"left out by {Path(path).name}", removed)
    return result


def _refuse_another_label(path: str, file_name: str, decision: Correction, now: str) -> None:
    if decision.label not in (now, "") and decision.decision != now:
        raise UsageError(
            f"{path} was decided when {file_name} was {decision.label}, and it is {now} now: look through the labels "
            "again (hf-mae audit --labels)."
        )
