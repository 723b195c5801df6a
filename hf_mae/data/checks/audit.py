"""Images of an audit, and the classification of near-duplicate pairs."""

from dataclasses import dataclass

from datasets import Dataset, DatasetDict

from ...errors import UsageError
from ..columns import get_image_paths
from ..images.messages import ImageMessage


@dataclass(frozen=True)
class AuditImage:
    """An image of the audit."""

    path: str
    file_name: str
    label: str
    split: str


def list_audit_images(splits: DatasetDict | dict[str, Dataset]) -> list[AuditImage]:
    """Lists the images of all splits with their labels (an empty string if there are none).

    Raises:
        UsageError: If the images are not separate files.
    """
    images = []
    for split, dataset in splits.items():
        paths = get_image_paths(dataset)
        if len(dataset) and not paths:
            raise UsageError(ImageMessage.AUDIT_REQUIRES_FILES)
        labels = [""] * len(paths)
        if "labels" in dataset.column_names:
            labels = [dataset.features["labels"].names[index] for index in dataset["labels"][:]]
        images += [AuditImage(*image, split) for image in zip(paths, dataset["file_name"][:], labels)]
    return images


@dataclass(frozen=True)
class PairKind:
    """Whether the images of a pair have different labels, and are in different splits."""

    conflicting_labels: bool
    across_splits: bool


def classify_duplicate_pair(first: AuditImage, second: AuditImage) -> PairKind:
    """Compares the labels and the splits of a pair."""
    return PairKind(first.label != second.label, first.split != second.split)
