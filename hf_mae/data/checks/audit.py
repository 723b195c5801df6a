"""Images of an audit, and the classification of near-duplicate pairs."""

from dataclasses import dataclass

from datasets import Dataset, DatasetDict

from ...errors import UsageError
from ..images.messages import ImageMessage
from ..sources.samples import get_image_paths

CONFLICTING_LABELS, ACROSS_SPLITS, SAME_LABEL = "conflicting labels", "across splits", "same label"


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


def classify_duplicate_pair(first: AuditImage, second: AuditImage) -> str:
    """Classifies a pair: `conflicting labels`, `across splits`, both, or `same label`."""
    kinds = [CONFLICTING_LABELS] if first.label != second.label else []
    kinds += [ACROSS_SPLITS] if first.split != second.split else []
    return "; ".join(kinds) or SAME_LABEL
