"""Extracts downloaded archives (.zip, .tar): once, only the images, into the cache."""

import hashlib
import logging
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from ...errors import UsageError, summarize_exception
from ...files.atomic import atomic_write_dir, copy_stream
from ...files.caches import cache_folder
from ..messages import DataMessage
from .image_files import IMAGE_SUFFIXES

logger = logging.getLogger(__name__)

EXTRACTED_DIR = "unpacked"  # folder of the cache
EXTRACTABLE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")


def extract_archives(root: Path) -> list[Path]:
    """Returns the folders with the images of a path: the path itself, and the extracted archives that it is or
    contains.

    Raises:
        UsageError: If an archive is damaged, or if the disk has not enough free space.
    """
    if root.is_file():
        if not root.name.lower().endswith(EXTRACTABLE_SUFFIXES):
            raise UsageError(DataMessage.NOT_A_DIRECTORY_OR_ARCHIVE, path=root, suffixes=EXTRACTABLE_SUFFIXES)
        return [_extract(root)]
    if not root.is_dir():
        raise UsageError(DataMessage.BENCHMARK_FOLDER_NOT_FOUND, path=root)
    archives = sorted(
        path for path in root.rglob("*") if path.name.lower().endswith(EXTRACTABLE_SUFFIXES) and path.is_file()
    )
    return [root, *(_extract(path) for path in archives if not _is_extracted_in_place(path))]


def _is_extracted_in_place(archive: Path) -> bool:
    """Whether the user extracted an archive into a folder of the same name next to it."""
    stem = archive.name[: -len(next(s for s in EXTRACTABLE_SUFFIXES if archive.name.lower().endswith(s)))]
    return (archive.parent / stem).is_dir()


def _extract(archive: Path) -> Path:
    status = archive.stat()
    key = f"{archive.resolve()} {status.st_size} {status.st_mtime_ns}"
    folder = cache_folder() / EXTRACTED_DIR / hashlib.sha256(key.encode()).hexdigest()[:16]
    if folder.is_dir():
        return folder
    logger.info("Extracting the images of %s to %s (once) ...", archive, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write_dir(folder, overwrite=False) as temp_dir:
            if archive.name.lower().endswith(".zip"):
                with zipfile.ZipFile(archive) as zip_file:
                    members = [info for info in zip_file.infolist() if _is_image(info.filename)]
                    _check_disk_space(sum(info.file_size for info in members), folder.parent, archive)
                    for info in tqdm(members, desc="Extracting", unit="image"):
                        with zip_file.open(info) as source:
                            _copy_member(source, temp_dir, info.filename)
            else:
                with tarfile.open(archive) as tar:
                    for name, content in _iter_tar_images(tar):
                        _copy_member(content, temp_dir, name)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, RuntimeError, NotImplementedError) as error:
        raise UsageError(DataMessage.EXTRACTION_FAILED, archive=archive, reason=summarize_exception(error)) from None
    return folder


def _iter_tar_images(tar: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes]]]:
    for member in tqdm(tar, desc="Extracting", unit="file"):
        if member.isfile() and _is_image(member.name) and (content := tar.extractfile(member)) is not None:
            yield member.name, content


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not PurePosixPath(name).name.startswith(".")


def _copy_member(source: IO[bytes], folder: Path, name: str) -> None:
    """Writes a member below the folder; absolute paths and `..` in its name are ignored."""
    parts = [
        part
        for part in PurePosixPath(name.replace("\\", "/")).parts
        if part not in ("/", "..", ".") and ":" not in part
    ]
    copy_stream(source, folder.joinpath(*parts))


def _check_disk_space(size: int, folder: Path, archive: Path) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UsageError(
            DataMessage.EXTRACTION_DISK_FULL,
            archive=archive,
            folder=folder,
            needed=f"{size / 1e9:.1f}",
            free=f"{free / 1e9:.1f}",
        )
