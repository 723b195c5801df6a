"""Room for decoded images: what the disk and `--cache_limit` allow, what goes to make room, and what is there."""

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

from ..errors import UsageError
from ..files.caches import cache_folder
from ..files.locks import wait_for_lock
from ..settings.data import CACHE_LIMIT_ENV, parse_byte_size

logger = logging.getLogger(__name__)

MIN_FREE_BYTES = 1_000_000_000  # bytes of a disk, for checkpoints and whoever else writes; of a small one its twentieth
IN_USE_SECONDS = 3600  # seconds since a file was used, below which it may be of a run that goes on
IMAGES_DIR, METADATA_FILE = "images", "about.json"  # the folder of stores; in each, what it is of

OTHER_DIRS = {
    "downloads": "downloaded files",
    "checkpoints": "public checkpoints, converted",
    "splits": "official split files",
    "unpacked": "unpacked archives",
}


class CacheFullError(UsageError):
    """Decoded images would take more than there is."""


@dataclass(frozen=True)
class CacheEntry:
    """A part of the cache.

    Args:
        name: as `hf-mae cache remove` takes it.
        description: it is.
        size: in bytes.
        num_images: in it; None: it is no store of images.
        last_used: when it was last used (seconds since 1970).
    """

    name: str
    description: str
    size: int
    num_images: int | None
    last_used: float


def evict_lru(required_bytes: int, folder: Path) -> None:
    """Removes the files of decoded images that were used longest ago, until `required_bytes` bytes are free within the disk
    and the limit; those of the last hour stay.

    Args:
        folder: on the disk that is written.

    Raises:
        NoRoom: that is not enough; nothing was removed.
    """
    size = _pixel_files()
    limit, room = _cache_limit(), _available_bytes(folder, sum(stat.st_size for stat in size.values()))
    if required_bytes <= room:
        return
    now, going = time.time(), []
    for file in sorted(size, key=lambda file: size[file].st_mtime):
        if room >= required_bytes or now - size[file].st_mtime < IN_USE_SECONDS:
            break
        going.append(file)
        room += size[file].st_size
    if room < required_bytes:
        of = f"--cache_limit {format_bytes(limit)}" if limit is not None else f"the disk of {folder}"
        raise CacheFullError(
            f"Prepared images would take about {format_bytes(required_bytes)}, and {of} has room for {format_bytes(max(0, room))} "
            "(hf-mae cache shows what is there)."
        )
    for file in going:
        file.unlink(missing_ok=True)
    freed = format_bytes(sum(size[file].st_size for file in going))
    logger.info("%s of prepared images that were used longest ago made room.", freed)


def _cache_limit() -> int | None:
    return parse_byte_size(os.environ.get(CACHE_LIMIT_ENV, ""))


def _available_bytes(folder: Path, used_bytes: int) -> int:
    """What the disk and the limit leave, with so much taken."""
    disk, limit = shutil.disk_usage(folder), _cache_limit()
    room = disk.free - min(MIN_FREE_BYTES, disk.total // 20)
    return room if limit is None else min(room, limit - used_bytes)


def max_cache_bytes() -> int:
    """What prepared images may take if all others went."""
    folder, taken = cache_folder(), sum(stat.st_size for stat in _pixel_files().values())
    while not folder.exists():
        folder = folder.parent
    return _available_bytes(folder, taken) + taken


def format_bytes(size: float) -> str:
    """A number of bytes for people."""
    for unit, worth in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= worth:
            return f"{size / worth:.1f} {unit}"
    return f"{size / 1e3:.0f} KB"


def _pixel_files() -> dict[Path, os.stat_result]:
    """The files of decoded images; one that another process removes meanwhile is none."""
    found = {}
    for file in sorted((cache_folder() / IMAGES_DIR).glob("*/*.arrow")):
        with suppress(FileNotFoundError):
            found[file] = file.stat()
    return found


def list_cache_entries() -> list[CacheEntry]:
    """What the cache holds, the largest first."""
    root, found = cache_folder(), []
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if folder.name == IMAGES_DIR:
            found += [_pixel_cache_entry(store) for store in sorted(folder.iterdir()) if store.is_dir()]
        elif folder.is_dir():
            found.append(_folder_entry(folder.name, OTHER_DIRS.get(folder.name, "kept by name"), folder))
    return sorted(found, key=lambda part: -part.size)


def _pixel_cache_entry(folder: Path) -> CacheEntry:
    sources = read_cache_sources(folder)
    known = "images (kept by an earlier version)"
    what = known if sources is None else f"images of {', '.join(sources) or 'parquet files'}"
    part = _folder_entry(folder.name[:12], what, folder)
    images = sum(_count_rows(file) for file in folder.glob("*.arrow"))
    return CacheEntry(part.name, part.description, part.size, images, part.last_used)


def read_cache_sources(store: Path) -> list[str] | None:
    """The folders whose images a store holds; None where it does not say."""
    try:
        return list(map(str, json.loads((store / METADATA_FILE).read_text(encoding="utf-8"))["sources"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _folder_entry(name: str, description: str, folder: Path) -> CacheEntry:
    stats = [file.stat() for file in folder.rglob("*") if file.is_file()]
    used = max((stat.st_mtime for stat in stats), default=folder.stat().st_mtime)
    return CacheEntry(name, description, sum(stat.st_size for stat in stats), None, used)


def _count_rows(file: Path) -> int:
    try:
        return len(datasets.Dataset.from_file(str(file)))
    except Exception:  # pyarrow raises many kinds for a damaged file; `damaged` names it
        return 0


def remove_damaged_files() -> list[Path]:
    """Files of decoded images that do not hold what they say; each is removed, and its images are decoded again."""
    found = [file for file in _pixel_files() if not _is_intact(file)]
    for file in found:
        file.unlink(missing_ok=True)
    return found


def _is_intact(file: Path) -> bool:
    try:
        rows = datasets.Dataset.from_file(str(file)).with_format("arrow")
        return all(
            _is_image(pixels.as_buffer(), int(np.prod(shape.as_py())))
            for start in range(0, len(rows), 64)
            for table in [rows[start : start + 64]]
            for pixels, shape in zip(table["pixels"], table["shape"], strict=True)
        )
    except Exception:  # as of `_rows`
        return False


def _is_image(content: Any, size: int) -> bool:
    return len(content) == size or (bytes(content[:2]) == b"\xff\xd8" and bytes(content[-2:]) == b"\xff\xd9")


def remove_cache_entry(name: str) -> int:
    """Removes a part of the cache, or `all` of it. Returns the bytes that are free now.

    Raises:
        UsageError: there is no part of this name, or images of it are being prepared.
    """
    root = cache_folder()
    there = list_cache_entries()
    chosen = [part for part in there if name in (part.name, "all")]
    if not chosen:
        names = ", ".join(part.name for part in there) or "nothing"
        raise UsageError(f"The cache holds no {name}; it holds {names}.")
    for part in chosen:
        stores = list((root / IMAGES_DIR).glob(f"{part.name}*")) if part.num_images is not None else [root / part.name]
        for folder in stores:
            if part.num_images is None:
                shutil.rmtree(folder)
                continue
            with wait_for_lock(folder / "lock", f"Another run is preparing images in {folder}: waiting for it."):
                shutil.rmtree(folder, ignore_errors=True)
    return sum(part.size for part in chosen)
