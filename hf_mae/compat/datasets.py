"""datasets: the fingerprint of a data set, the columns of a stream, its writer of Arrow files, and streams from S3.
Verified with datasets 4.0 to 5.2."""

from functools import cache
from typing import Any

from datasets import Dataset, Features, IterableDataset
from datasets.arrow_writer import ArrowWriter
from fsspec import register_implementation

__all__ = ["ArrowWriter", "get_fingerprint", "get_stream_features", "has_no_indices_mapping", "patch_s3fs_streaming"]


def get_fingerprint(dataset: Dataset) -> str:
    """Changes with the data set's content and with what was done to it."""
    return dataset._fingerprint


def has_no_indices_mapping(dataset: Dataset) -> bool:
    """Whether its rows are those of its files, in their order: none was selected or shuffled."""
    return dataset._indices is None


def get_stream_features(stream: IterableDataset) -> Features:
    """The columns of a stream; of files that do not tell (parquet without a head of `datasets`), its first row does."""
    return stream.features or stream._resolve_features().features


@cache
def patch_s3fs_streaming() -> None:
    """Streams of tar files from S3: datasets opens every store with `block_size=0`, which s3fs takes for a word to its
    sessions, and these refuse it."""
    try:
        from s3fs import S3FileSystem
    except ImportError:
        return  # whoever opens a URL says so

    class StreamedS3(S3FileSystem):
        def __init__(self, *args: Any, block_size: int | None = None, **kwargs: Any):
            super().__init__(*args, **kwargs)

    for protocol in ("s3", "s3a"):
        register_implementation(protocol, StreamedS3, clobber=True)
