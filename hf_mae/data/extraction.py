"""Archives as they were downloaded: a .zip or .tar is unpacked once, its images alone, into the cache."""

import hashlib
import logging
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from ..errors import UsageError, summarize_exception
from ..files.atomic import atomic_write_dir, copy_stream
from ..files.caches import cache_folder
from .image_files import IMAGE_SUFFIXES

logger = logging.getLogger(__name__)

EXTRACTED_DIR = "unpacked"  # the folder of the cache that holds what was unpacked
EXTRACTABLE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")


def extract_archives(root: Path) -> list[Path]:
    """Where the images of a path are: the path itself, and what archives it is or holds were unpacked to.

    Raises:
        UsageError: an archive is damaged, or does not fit on the disk.
    """
    if root.is_file():
        if not root.name.lower().endswith(EXTRACTABLE_SUFFIXES):
            raise UsageError(f"{root} is no folder and no archive ({', '.join(EXTRACTABLE_SUFFIXES)}).")
        return [_extract(root)]
    if not root.is_dir():
        raise UsageError(f"{root} does not exist: --data_dir takes the unpacked archive, or the archive itself.")
    inside = sorted(
        path for path in root.rglob("*") if path.name.lower().endswith(EXTRACTABLE_SUFFIXES) and path.is_file()
    )
    # Whoever unpacked an archive beside itself has its images already.
    packed = [path for path in inside if not _is_extracted_in_place(path)]
    return [root, *(_extract(path) for path in packed)]


def _is_extracted_in_place(archive: Path) -> bool:
    stem = archive.name[: -len(next(s for s in EXTRACTABLE_SUFFIXES if archive.name.lower().endswith(s)))]
    return (archive.parent / stem).is_dir()


def _extract(archive: Path) -> Path:
    facts = archive.stat()
    key = f"{archive.resolve()} {facts.st_size} {facts.st_mtime_ns}"
    folder = cache_folder() / EXTRACTED_DIR / hashlib.sha256(key.encode()).hexdigest()[:16]
    if folder.is_dir():
        return folder
    logger.info("Unpacking the images of %s into %s (once) ...", archive, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write_dir(folder, overwrite=False) as fresh:
            if archive.name.lower().endswith(".zip"):
                with zipfile.ZipFile(archive) as opened:
                    members = [info for info in opened.infolist() if _is_image(info.filename)]
                    _check_disk_space(sum(info.file_size for info in members), folder.parent, archive)
                    for info in tqdm(members, desc="Unpacking", unit="image"):
                        with opened.open(info) as source:
                            _copy_member(source, fresh, info.filename)
            else:
                with tarfile.open(archive) as tar:
                    for member, content in _iter_tar_images(tar):
                        _copy_member(content, fresh, member)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, RuntimeError, NotImplementedError) as error:
        raise UsageError(
            f"{archive} cannot be unpacked ({summarize_exception(error)}): is the download whole?"
        ) from None
    return folder


def _iter_tar_images(tar: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes]]]:
    for member in tqdm(tar, desc="Unpacking", unit="file"):
        if member.isfile() and _is_image(member.name) and (content := tar.extractfile(member)) is not None:
            yield member.name, content


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not PurePosixPath(name).name.startswith(".")


def _copy_member(source: IO[bytes], folder: Path, name: str) -> None:
    """Writes a member below the folder, whatever path it claims to have."""
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
            f"{archive} needs {size / 1e9:.1f} GB unpacked, and {folder} has {free / 1e9:.1f} GB: make room, or set "
            "HF_HOME to a folder on another disk."
        )
