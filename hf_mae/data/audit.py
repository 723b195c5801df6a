"""The images of an audit, and what is the matter with a pair of near-duplicates."""

from dataclasses import dataclass

from datasets import Dataset, DatasetDict

from ..errors import UsageError
from .samples import get_image_paths

CONFLICTING_LABELS, ACROSS_SPLITS, SAME_LABEL = "conflicting labels", "across splits", "same label"


@dataclass(frozen=True)
class AuditImage:
    """An image of the audit."""

    path: str
    file_name: str
    label: str
    split: str


def list_audit_images(splits: DatasetDict | dict[str, Dataset]) -> list[AuditImage]:
    """Every image of the splits, with its label ("" where there are none).

    Raises:
        UsageError: the images are no files.
    """
    images = []
    for split, dataset in splits.items():
        paths = get_image_paths(dataset)
        if len(dataset) and not paths:
            raise UsageError("The images are not files of their own (a parquet file or a Hub data set): unpack them.")
        labels = [""] * len(paths)
        if "labels" in dataset.column_names:
            labels = [dataset.features["labels"].names[index] for index in dataset["labels"][:]]
        images += [AuditImage(*image, split) for image in zip(paths, dataset["file_name"][:], labels)]
    return images


def classify_duplicate_pair(first: AuditImage, second: AuditImage) -> str:
    """What is the matter with a pair: `conflicting labels`, `across splits`, both, or `same label`."""
    kinds = [CONFLICTING_LABELS] if first.label != second.label else []
    kinds += [ACROSS_SPLITS] if first.split != second.split else []
    return "; ".join(kinds) or SAME_LABEL
