"""datasets: the fingerprint of a data set, and its writer of Arrow files. Verified with datasets 4.0 to 5.2."""

from datasets import Dataset
from datasets.arrow_writer import ArrowWriter

__all__ = ["ArrowWriter", "fingerprint_of"]


def fingerprint_of(dataset: Dataset) -> str:
    """Changes with the data set's content and with what was done to it."""
    return dataset._fingerprint
