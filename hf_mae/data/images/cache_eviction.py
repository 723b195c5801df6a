"""Size limit and LRU eviction of the pixel cache, and the list of cache entries."""

import json
import logging
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from ...errors import UsageError
from ...files.caches import cache_folder, cache_path
from ...files.locks import wait_for_lock
from ...settings.data import parse_byte_size
from ...settings.limits import cache_limit
from .messages import ImageMessage

logger = logging.getLogger(__name__)

MIN_FREE_BYTES = 1_000_000_000  # left free on a disk for checkpoints and other programs; a twentieth of a small disk
IN_USE_SECONDS = 3600  # a file that was used more recently may belong to a running training
IMAGES_DIR, METADATA_FILE = "images", "about.json"  # folder of the pixel caches; metadata file of each

OTHER_DIRS = {
    "downloads": "downloaded files",
    "checkpoints": "public checkpoints, converted",
    "splits": "official split files",
    "unpacked": "decompressed archives",
}


class CacheFullError(UsageError):
    """The disk or the cache limit is too small for the decoded images."""


@dataclass(frozen=True)
class CacheEntry:
    """An entry of the cache.

    Args:
        name: argument of `hf-mae cache remove`.
        description: its contents.
        size: in bytes.
        num_images: number of images; None for an entry that is not a pixel cache.
        last_used: time of the last use (seconds since 1970).
    """

    name: str
    description: str
    size: int
    num_images: int | None
    last_used: float


def evict_lru(required_bytes: int, folder: Path) -> None:
    """Removes the least recently used pixel files until the disk and the cache limit have `required_bytes` available.

    Files that were used within the last hour stay.

    Args:
        required_bytes: size of the images to be written.
        folder: a folder on the disk to be written to.

    Raises:
        CacheFullError: If eviction cannot free enough space; then nothing is removed.
    """
    stats = _pixel_files(folder.parent)
    limit, available = (
        parse_byte_size(cache_limit()),
        _available_bytes(folder, sum(stat.st_size for stat in stats.values())),
    )
    if required_bytes <= available:
        return
    now, evicted = time.time(), []
    for file in sorted(stats, key=lambda file: stats[file].st_mtime):
        if available >= required_bytes or now - stats[file].st_mtime < IN_USE_SECONDS:
            break
        evicted.append(file)
        available += stats[file].st_size
    if available < required_bytes:
        sizes = {"required": format_bytes(required_bytes), "available": format_bytes(max(0, available))}
        if limit is not None:
            raise CacheFullError(ImageMessage.CACHE_LIMIT_TOO_SMALL, limit=format_bytes(limit), **sizes)
        raise CacheFullError(ImageMessage.DISK_TOO_SMALL, folder=folder, **sizes)
    for file in evicted:
        file.unlink(missing_ok=True)
    freed = format_bytes(sum(stats[file].st_size for file in evicted))
    logger.info("Removed %s of least recently used prepared images.", freed)


def _available_bytes(folder: Path, used_bytes: int) -> int:
    """Returns the bytes that the disk and the cache limit leave if the pixel caches use `used_bytes`."""
    disk, limit = shutil.disk_usage(folder), parse_byte_size(cache_limit())
    available = disk.free - min(MIN_FREE_BYTES, disk.total // 20)
    return available if limit is None else min(available, limit - used_bytes)


def max_cache_bytes() -> int:
    """Returns the bytes available for prepared images if all others were removed."""
    folder = cache_path(IMAGES_DIR, for_writing=True)
    used_bytes = sum(stat.st_size for stat in _pixel_files(folder).values())
    while not folder.exists():
        folder = folder.parent
    return _available_bytes(folder, used_bytes) + used_bytes


def format_bytes(size: float) -> str:
    """Formats a number of bytes with a decimal unit."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size / 1e3:.0f} KB"


def _pixel_files(folder: Path | None = None) -> dict[Path, os.stat_result]:
    """Files of decoded images, without those that another process removes in the meantime."""
    stats = {}
    for file in sorted((folder or cache_folder() / IMAGES_DIR).glob("*/*.arrow")):
        with suppress(FileNotFoundError):
            stats[file] = file.stat()
    return stats


def list_cache_entries() -> list[CacheEntry]:
    """Lists the entries of the cache, the largest first."""
    root, entries = cache_folder(), []
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if folder.name == IMAGES_DIR:
            entries += [_pixel_cache_entry(cache) for cache in sorted(folder.iterdir()) if cache.is_dir()]
        elif folder.is_dir():
            entries.append(_folder_entry(folder.name, OTHER_DIRS.get(folder.name, "cached results"), folder))
    return sorted(entries, key=lambda entry: -entry.size)


def _pixel_cache_entry(folder: Path) -> CacheEntry:
    sources = read_cache_sources(folder)
    description = "images" if sources is None else f"images of {', '.join(sources) or 'parquet files'}"
    entry = _folder_entry(folder.name[:12], description, folder)
    num_images = sum(_count_rows(file) for file in folder.glob("*.arrow"))
    return CacheEntry(entry.name, entry.description, entry.size, num_images, entry.last_used)


def read_cache_sources(folder: Path) -> list[str] | None:
    """Reads the folders whose images a pixel cache contains; None if its metadata is missing or damaged."""
    try:
        return list(map(str, json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))["sources"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _folder_entry(name: str, description: str, folder: Path) -> CacheEntry:
    stats = [file.stat() for file in folder.rglob("*") if file.is_file()]
    last_used = max((stat.st_mtime for stat in stats), default=folder.stat().st_mtime)
    return CacheEntry(name, description, sum(stat.st_size for stat in stats), None, last_used)


def _count_rows(file: Path) -> int:
    try:
        return len(datasets.Dataset.from_file(str(file)))
    except Exception:  # pyarrow raises many types for a damaged file, which `remove_damaged_files` reports
        return 0


def remove_damaged_files() -> list[Path]:
    """Removes damaged files of decoded images and returns them; their images will be decoded again."""
    damaged = [file for file in _pixel_files() if not _is_intact(file)]
    for file in damaged:
        file.unlink(missing_ok=True)
    return damaged


def _is_intact(file: Path) -> bool:
    try:
        rows = datasets.Dataset.from_file(str(file)).with_format("arrow")
        return all(
            _is_image(pixels.as_buffer(), int(np.prod(shape.as_py())))
            for start in range(0, len(rows), 64)
            for table in [rows[start : start + 64]]
            for pixels, shape in zip(table["pixels"], table["shape"], strict=True)
        )
    except Exception:  # as in `_count_rows`
        return False


def _is_image(content: Any, size: int) -> bool:
    return len(content) == size or (bytes(content[:2]) == b"\xff\xd8" and bytes(content[-2:]) == b"\xff\xd9")


def remove_cache_entry(name: str) -> int:
    """Removes an entry of the cache, or `all` entries. Returns the number of bytes freed.

    Raises:
        UsageError: If no entry has this name.
    """
    root, entries = cache_folder(), list_cache_entries()
    removed = [entry for entry in entries if name in (entry.name, "all")]
    if not entries:
        raise UsageError(ImageMessage.CACHE_EMPTY, name=name)
    if not removed:
        raise UsageError(ImageMessage.CACHE_ENTRY_NOT_FOUND, name=name, entries=[entry.name for entry in entries])
    for entry in removed:
        if entry.num_images is None:
            shutil.rmtree(root / entry.name)
            continue
        for folder in (root / IMAGES_DIR).glob(f"{entry.name}*"):
            with wait_for_lock(folder / "lock", f"Waiting for another run that prepares images in {folder}."):
                shutil.rmtree(folder, ignore_errors=True)
    return sum(entry.size for entry in removed)
