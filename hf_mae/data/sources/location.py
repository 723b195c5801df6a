"""Facts about the address of a source, from the content of its files. Each is looked up once, when it is needed."""

import os
import re
import tarfile
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

from ...errors import UsageError, first_error_line
from ...files.archive_members import ARCHIVE_SUFFIXES, TABLE_SUFFIX, convert_remote_errors, file_system, is_remote
from ...files.redaction import hide_credentials
from ..messages import DataMessage
from .image_files import ImageTree, ignore_reason, walk_images
from .tables import read_table

TAR, ZIP, PARQUET, ARROW, COMPRESSED, TEXT = "tar", "zip", "parquet", "arrow", "compressed", "text"
MAGIC_BYTES = {
    **dict.fromkeys((b"PK\x03\x04", b"PK\x05\x06"), ZIP),
    b"PAR1": PARQUET,
    **dict.fromkeys((b"ARROW1", b"\xff\xff\xff\xff"), ARROW),
    **dict.fromkeys((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"), COMPRESSED),
}
TYPE_BY_SUFFIX = {".tar": TAR, ".zip": ZIP, TABLE_SUFFIX: PARQUET}
OFFICE_SUFFIXES = (".docx", ".xlsx", ".pptx", ".odt", ".ods", ".odp", ".npz", ".whl", ".jar")  # zip files, too
HEAD_BYTES = 4096


def sniff(head: bytes) -> str | None:
    """Returns the type of a file from its first bytes; None for any other type."""
    for magic, file_type in MAGIC_BYTES.items():
        if head.startswith(magic):
            return file_type
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
        return TAR
    except tarfile.HeaderError:
        return TEXT if head and b"\0" not in head.removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff")[::2] else None


class Location:
    """The address of a source: a local path, a URL that fsspec opens, or a name that is neither.

    Args:
        uri: as given by the user; `self.uri` has no password.
    """

    def __init__(self, uri: str):
        self.uri = uri = hide_credentials(uri)
        self.is_remote = is_remote(uri) and not os.path.lexists(uri)
        self.path = Path(uri)
        self._tables: dict[Path, list[dict[str, Any]]] = {}

    @cached_property
    def exists(self) -> bool:
        """Whether it is a local file or folder."""
        return not self.is_remote and self.path.exists()

    @cached_property
    def is_folder(self) -> bool:
        """Whether it is a local folder."""
        return not self.is_remote and self.path.is_dir()

    @cached_property
    def root(self) -> str:
        """The address without a final slash; the absolute path of a local one."""
        return self.uri.rstrip("/") if self.is_remote else str(self.path.resolve())

    @cached_property
    def file_type(self) -> str | None:
        """The type of a single file, from its content (of an empty or damaged one, from its name); None for a
        folder."""
        if self.is_remote:
            return self._remote_file_type
        if not self.path.is_file():
            return None
        return local_file_type(self.uri)

    @cached_property
    def head(self) -> bytes:
        """The first bytes of a local file."""
        with open(self.path, "rb") as file:
            return file.read(HEAD_BYTES)

    @cached_property
    def tree(self) -> ImageTree:
        """The image files below a local folder."""
        return walk_images(self.path)

    @cached_property
    def files(self) -> list[str]:
        """The files that may be archives or tables: the location itself, or the files below a folder (without images),
        a URL or a pattern; sorted.

        Raises:
            UsageError: If a URL cannot be reached.
        """
        if self.is_remote:
            return self._remote_files
        if not self.is_folder:
            return [str(self.path.resolve())] if self.exists else []
        return [os.path.join(self.path.resolve(), name) for name in self.tree.others]

    @cached_property
    def archives(self) -> list[str]:
        """The tar and zip files among `files`."""
        return [file for file, file_type in self._types.items() if file_type in (TAR, ZIP)]

    @cached_property
    def tables(self) -> list[str]:
        """The parquet and Arrow files among `files`."""
        return [file for file, file_type in self._types.items() if file_type in (PARQUET, ARROW)]

    @cached_property
    def _types(self) -> dict[str, str | None]:
        return {file: self.find_type(file) for file in self.files}

    def read_table(self, path: Path) -> list[dict[str, Any]]:
        """Returns the rows of a table (see `tables.read_table`), which is read once."""
        if path not in self._tables:
            self._tables[path] = read_table(path)
        return self._tables[path]

    def relative(self, file: str) -> str:
        """Returns the name of one of `files` below the location; the name of the file if it is the location."""
        base = re.sub(r"[^/]*\*.*", "", self.uri) if self.is_remote else str(self.path.resolve())
        name = file.removeprefix(base.rstrip("/") + "/")
        return name if name != file else os.path.basename(file)

    def find_type(self, file: str) -> str | None:
        """Returns the type of one of `files`; of remote files among several, from the name."""
        if self.is_remote:
            return self._remote_file_type if [file] == self.files else _type_by_suffix(file)
        return None if file.lower().endswith(OFFICE_SUFFIXES) else local_file_type(file)

    def count_others(self, used: list[str]) -> Counter[str]:
        """Counts the files of a local folder that are not images and not `used`, by the reason to ignore them."""
        if not self.is_folder:
            return Counter()
        return self.tree.ignored_counts - Counter(ignore_reason(os.path.basename(file), ()) or "" for file in used)

    @cached_property
    def _remote_file_type(self) -> str | None:
        """The type of the only file of a URL."""
        if len(self.files) != 1:
            return None
        try:
            with convert_remote_errors():
                system, path = file_system(self.files[0])
                return sniff(system.cat_file(path, start=0, end=HEAD_BYTES)) or _type_by_suffix(self.files[0])
        except OSError as error:
            raise UsageError(DataMessage.SOURCE_UNREACHABLE, source=self.uri, reason=first_error_line(error)) from None

    @cached_property
    def _remote_files(self) -> list[str]:
        try:
            with convert_remote_errors():
                system, path = file_system(self.uri)
                if path.lower().endswith((*ARCHIVE_SUFFIXES, TABLE_SUFFIX)) and "*" not in path:
                    return [self.uri]  # many servers cannot list a folder
                paths = [path] if system.isfile(path) else system.glob(path) if "*" in path else system.find(path)
                return sorted(hide_credentials(system.unstrip_protocol(path)) for path in paths)
        except OSError as error:
            raise UsageError(DataMessage.SOURCE_UNREACHABLE, source=self.uri, reason=first_error_line(error)) from None

    def has_remote_file(self, name: str) -> bool:
        """Whether a URL has a file of this name in its folder; the folder is not listed."""
        try:
            with convert_remote_errors():
                system, path = file_system(f"{self.uri.rstrip('/')}/{name}")
                return bool(system.exists(path))
        except OSError as error:
            raise UsageError(DataMessage.SOURCE_UNREACHABLE, source=self.uri, reason=first_error_line(error)) from None


def local_file_type(file: str) -> str | None:
    """Returns the type of a local file, from its content; if that has no known type, from its name."""
    with open(file, "rb") as opened:
        content_type = sniff(opened.read(HEAD_BYTES))
    if content_type in (None, TEXT, COMPRESSED):  # an empty or damaged archive is still meant to be one
        return _type_by_suffix(file) or content_type
    return content_type


def _type_by_suffix(file: str) -> str | None:
    return next((kind for suffix, kind in TYPE_BY_SUFFIX.items() if file.lower().endswith(suffix)), None)
