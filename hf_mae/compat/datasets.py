"""datasets: dataset fingerprints, the columns of a stream, the Arrow writer, and streams from S3.

Verified with datasets 4.0 to 5.2.
"""

from functools import cache
from typing import Any

from datasets import Dataset, Features, IterableDataset
from datasets.arrow_writer import ArrowWriter
from fsspec import register_implementation

__all__ = ["ArrowWriter", "get_fingerprint", "get_stream_features", "has_no_indices_mapping", "patch_s3fs_streaming"]


def get_fingerprint(dataset: Dataset) -> str:
    """Returns a key that changes with the content and the transforms of a dataset."""
    return dataset._fingerprint


def has_no_indices_mapping(dataset: Dataset) -> bool:
    """Whether a dataset has all rows of its files in their order, without selection or shuffling."""
    return dataset._indices is None


def get_stream_features(stream: IterableDataset) -> Features:
    """Returns the columns of a stream; reads the first row of files without metadata of `datasets`."""
    return stream.features or stream._resolve_features().features


@cache
def patch_s3fs_streaming() -> None:
    """Makes streams of tar files from S3 work.

    datasets opens every file system with `block_size=0`. s3fs passes the argument to its sessions, which reject it.
    """
    try:
        from s3fs import S3FileSystem
    except ImportError:
        return  # opening the URL reports the missing package

    class StreamedS3(S3FileSystem):
        def __init__(self, *args: Any, block_size: int | None = None, **kwargs: Any):
            super().__init__(*args, **kwargs)

    for protocol in ("s3", "s3a"):
        register_implementation(protocol, StreamedS3, clobber=True)
