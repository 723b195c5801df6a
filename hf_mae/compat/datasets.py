"""datasets: dataset fingerprints and the Arrow writer.

Verified with datasets 5.0 to 5.2.
"""

from datasets import Dataset
from datasets.arrow_writer import ArrowWriter

__all__ = ["ArrowWriter", "get_fingerprint", "has_no_indices_mapping"]


def get_fingerprint(dataset: Dataset) -> str:
    """Returns a key that changes with the content and the transforms of a dataset."""
    return dataset._fingerprint


def has_no_indices_mapping(dataset: Dataset) -> bool:
    """Whether a dataset has all rows of its files in their order, without selection or shuffling."""
    return dataset._indices is None
