"""Streams of images: tar, zip and parquet files that are read from start to end, without an index."""

import hashlib
import os
from collections.abc import Iterator
from typing import Any

from ...errors import UsageError
from ...files.archive_members import file_system, is_remote
from ..messages import DataMessage
from .archive import iter_archive_images, open_binary
from .kinds import SourceOptions
from .location import ARROW, HEAD_BYTES, PARQUET, local_file_type, sniff
from .source import open_source
from .table import iter_table_images

NamedImage = tuple[str, dict[str, Any]]  # name, undecoded image


def find_stream_files(source: str) -> tuple[list[str], int | None]:
    """Lists the files of a stream, sorted, and the number of images if it is known without reading them.

    Args:
        source: a folder or URL of archives or parquet files, a single file, a pattern, or a Hub id.

    Raises:
        UsageError: If the source cannot be reached, or contains no such files.
    """
    files, num_images = open_source(source, SourceOptions(labelled=False)).stream_files()
    if not files:
        raise UsageError(DataMessage.NO_STREAM_FILES, source=source)
    if others := [file for file in files if not is_remote(file) and local_file_type(file) == ARROW]:
        raise UsageError(DataMessage.STREAM_WITH_ARROW_FILES, source=source, names=others[:3])
    return files, num_images


def iter_stream_images(file: str) -> Iterator[NamedImage]:
    """Yields the images of a file in its order; its content decides how it is read.

    Raises:
        Exception: tarfile, zipfile, pyarrow and fsspec raise many types for files that cannot be read.
    """
    with open_binary(file) as opened:
        is_table = sniff(opened.read(HEAD_BYTES)) == PARQUET
        opened.seek(0)
        yield from iter_table_images(file, opened) if is_table else iter_archive_images(file, opened)


def stream_fingerprint(files: list[str]) -> str:
    """Returns the fingerprint of the names and sizes of the files; independent of their folder."""
    digest = hashlib.sha256()
    for file in files:
        system, path = file_system(file)
        digest.update(f"{os.path.basename(file)}\0{system.info(path).get('size')}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]
