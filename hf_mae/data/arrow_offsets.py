"""Images that lie within the Arrow files of a data set -> where their bytes are there: nothing is copied.

`datasets` keeps tables in uncompressed Arrow streams, in which the bytes of an image follow each other, as in a tar
file. Named as members of such a file (`files.members`) they are read, hashed and kept as any other image is, by any
number of processes, and none of them holds the table.
"""

import numpy as np
import pyarrow as pa
from datasets import Dataset

from ..compat.datasets import has_no_indices_mapping
from ..files.archive_members import Member


def locate_embedded_images(dataset: Dataset, image_column: str) -> list[str] | None:
    """The place of every image of an undecoded column (a path, or a member of an Arrow file), in the order of the rows.

    Returns:
        None: an image lies neither in a file nor in one of the data set's own (which are in memory, or compressed).
    """
    if not has_no_indices_mapping(dataset):
        return None
    places: list[str] = []
    for file in dataset.cache_files:
        found = _locate_in_file(file["filename"], image_column)
        if found is None:
            return None
        places += found
    return places if len(places) == len(dataset) else None


def _locate_in_file(file: str, image_column: str) -> list[str] | None:
    places: list[str] = []
    with pa.memory_map(file) as mapped:
        whole = mapped.read_buffer()
        for batch in pa.ipc.open_stream(pa.py_buffer(whole)):
            column = batch.column(image_column)
            encoded = column.field("bytes") if pa.types.is_struct(column.type) else column
            paths = column.field("path").to_pylist() if pa.types.is_struct(column.type) else [None] * len(column)
            starts = _value_offsets(encoded, whole)
            for path, valid, start, end in zip(paths, encoded.is_valid().to_pylist(), starts, starts[1:]):
                if valid and 0 <= start <= end <= whole.size:
                    places.append(str(Member(file, int(start), int(end - start), False)))
                elif not valid and path:
                    places.append(path)
                else:
                    return None
    return places


def _value_offsets(column: pa.Array, buffer: pa.Buffer) -> np.ndarray:
    """Where the values of a column of bytes begin within a buffer, and the last one ends."""
    _, offsets, data = column.buffers()
    kind = np.int64 if pa.types.is_large_binary(column.type) else np.int32
    own = np.frombuffer(offsets, kind)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    return own + (data.address - buffer.address if data is not None else 0)
