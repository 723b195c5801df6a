"""datasets: the fingerprint of a data set, the columns of a stream, and its writer of Arrow files. Verified with
datasets 4.0 to 5.2."""

from datasets import Dataset, Features, IterableDataset
from datasets.arrow_writer import ArrowWriter

__all__ = ["ArrowWriter", "features_of", "fingerprint_of"]


def fingerprint_of(dataset: Dataset) -> str:
    """Changes with the data set's content and with what was done to it."""
    return dataset._fingerprint


def features_of(stream: IterableDataset) -> Features:
    """The columns of a stream; of files that do not tell (parquet without a head of `datasets`), its first row does."""
    return stream.features or stream._resolve_features().features
