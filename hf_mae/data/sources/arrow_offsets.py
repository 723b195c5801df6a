"""Byte offsets of the images in a dataset's Arrow files, so that the images are read in place, without a copy.

`datasets` stores tables as uncompressed Arrow streams, in which the bytes of an image are contiguous, as in a tar file.
As members of such a file (`files.archive_members`), the images are read, hashed and cached like any other image, by any
number of processes, and no process keeps the table in memory.
"""

import numpy as np
import pyarrow as pa
from datasets import Dataset

from ...compat.datasets import has_no_indices_mapping
from ...files.archive_members import Member


def locate_embedded_images(dataset: Dataset, image_column: str) -> list[str] | None:
    """Returns the path of each image of an undecoded column (a file, or a member of an Arrow file), in row order.

    Returns:
        None if an image is neither a file nor stored in one of the dataset's own files (in memory, compressed).
    """
    if not has_no_indices_mapping(dataset):
        return None
    paths: list[str] = []
    for file in dataset.cache_files:
        file_paths = _locate_in_file(file["filename"], image_column)
        if file_paths is None:
            return None
        paths += file_paths
    return paths if len(paths) == len(dataset) else None


def _locate_in_file(file: str, image_column: str) -> list[str] | None:
    located: list[str] = []
    with pa.memory_map(file) as mapped:
        buffer = mapped.read_buffer()
        for batch in pa.ipc.open_stream(pa.py_buffer(buffer)):
            column = batch.column(image_column)
            encoded = column.field("bytes") if pa.types.is_struct(column.type) else column
            paths = column.field("path").to_pylist() if pa.types.is_struct(column.type) else [None] * len(column)
            starts = _value_offsets(encoded, buffer)
            for path, valid, start, end in zip(paths, encoded.is_valid().to_pylist(), starts, starts[1:]):
                if valid and 0 <= start <= end <= buffer.size:
                    located.append(str(Member(file, int(start), int(end - start), False)))
                elif not valid and path:
                    located.append(path)
                else:
                    return None
    return located


def _value_offsets(column: pa.Array, buffer: pa.Buffer) -> np.ndarray:
    """Returns the offsets within a buffer at which the values of a binary column start; the last one is the end:
    (values + 1,)."""
    _, offsets, data = column.buffers()
    dtype = np.int64 if pa.types.is_large_binary(column.type) else np.int32
    value_offsets = np.frombuffer(offsets, dtype)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    return value_offsets + (data.address - buffer.address if data is not None else 0)
