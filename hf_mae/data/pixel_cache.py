"""Decoded images on disk, memory-mapped: what was decoded once is not decoded again, whatever the run, split or fold.

A store is a folder of Arrow files (`key`, `pixels` as bytes, `shape`, `digest`), one for each preparation of images.
A file appears when it is whole, so that an interruption costs no more than the one that was being written.

The stores know the disk: what they will take is estimated before the first byte is written. Files that were used
longest ago go where there is no room (`room.make_room`); where that is not enough, nothing is kept, and the caller
decodes anew.
"""

import errno
import hashlib
import io
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image
from tqdm.auto import tqdm

from ..compat.datasets import ArrowWriter
from ..files.atomic import write_json
from ..files.caches import cache_folder
from ..files.locks import wait_for_lock
from .cache_eviction import METADATA_FILE, CacheFullError, evict_lru, read_cache_sources

logger = logging.getLogger(__name__)

DECODING_VERSION = 2  # of `opening`: what a file's levels become; another rule makes other stores
MIN_IMAGES_PER_FILE, BATCH_SIZE = 512, 64  # in an Arrow file, at least; in memory
TARGET_NUM_FILES, MAX_IMAGES_PER_FILE = (
    64,
    8192,
)  # of a large set, so that few are opened: about so many; images in one at most
DecodedImage = tuple[np.ndarray, str]  # uint8 (height, width, 3), and the digest of the whole image
NUM_SIZE_SAMPLES = 8  # images that are decoded to tell what all will take

FEATURES = datasets.Features(
    {
        "key": datasets.Value("string"),
        "pixels": datasets.Value("binary"),
        "shape": datasets.List(datasets.Value("int32")),
        "digest": datasets.Value("string"),  # of the whole image, before it was resized
    }
)


@lru_cache(maxsize=1024)
def _open_arrow_file(path: Path) -> datasets.Dataset:
    return datasets.Dataset.from_file(str(path))


def _column(path: Path, name: str) -> list[pa.Array]:
    return _open_arrow_file(path).data.column(name).chunks


class PixelCache:
    """Images by key.

    Args:
        preparation: what is done to the images; another one is another store.
        quality: images are kept as JPEG of this quality (without subsampling of colours); None: as they are.
    """

    def __init__(self, preparation: str, quality: int | None = None):
        self.preparation = preparation if quality is None else f"{preparation}, JPEG of quality {quality}"
        self.quality = quality
        name = hashlib.sha256(f"{self.preparation} {DECODING_VERSION}".encode()).hexdigest()[:32]
        self.folder = cache_folder() / "images" / name
        self.folder.mkdir(parents=True, exist_ok=True)

    def digests(self, keys: Sequence[str]) -> list[str]:
        """Of the images' own pixels; empty for one that is not there."""
        files, places = self._files(), self._find_rows(keys)
        known = pa.chunked_array([[""], *(chunk for file in files for chunk in _column(file, "digest"))], pa.string())
        return known.take(pa.array(places + 1)).to_pylist()

    def _find_rows(self, keys: Sequence[str]) -> np.ndarray:
        """The row of each key in all files, one after the other; -1 where it is not there. Arrow looks them up: of
        millions, a dict would take a gigabyte."""
        known = pa.chunked_array([chunk for file in self._files() for chunk in _column(file, "key")], pa.string())
        places = pc.index_in(pa.array(keys, pa.string()), value_set=known.combine_chunks())
        return places.fill_null(-1).to_numpy().astype(np.int64)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.arrow"))

    def add(
        self,
        keys: Sequence[str],
        decode: Callable[[int], tuple[np.ndarray, str] | None],
        num_workers: int | None = None,
        source: str = "",
    ) -> None:
        """Decodes, in threads, whatever is not there. (Forked processes would stand still: the threads that torch has
        started by then do not live on in a fork.)

        Args:
            keys: of the images.
            decode: place among `keys` -> uint8 (height, width, 3) and a digest, or None for one that is not to be kept.
            source: the folder that the images are of, for `hf-mae cache`.

        Raises:
            NoRoom: the disk, or `--cache_limit`, has no room for them.
        """
        if not self._missing(keys):
            return
        waiting = f"Another run is preparing these images (in {self.folder}): waiting for it."
        with (
            ThreadPoolExecutor(num_workers or os.cpu_count() or 1) as pool,
            wait_for_lock(self.folder / "lock", waiting),
        ):
            for left_behind in self.folder.glob(".*.partial"):  # by a run that was killed
                left_behind.unlink()
            missing = self._missing(keys)
            early = _decode_some(missing, decode, pool)
            evict_lru(
                _estimate_total_bytes(len(missing), [self._encode(array) for array, _ in early.values()]), self.folder
            )
            if self.quality is not None:
                _log_jpeg_loss(self.quality, [array for array, _ in early.values()], self._encode)
            self._add_source(source)

            def once(place: int) -> DecodedImage | None:
                return early.pop(place) if place in early else decode(place)

            done = len(keys) - len(missing)
            with tqdm(total=len(keys), initial=done, desc="Decoding images", unit="image") as bar:
                size = min(max(MIN_IMAGES_PER_FILE, len(missing) // TARGET_NUM_FILES), MAX_IMAGES_PER_FILE)
                for start in range(0, len(missing), size):
                    self._write_file(keys, missing[start : start + size], once, pool, bar)

    def _missing(self, keys: Sequence[str]) -> list[int]:
        missing = np.flatnonzero(self._find_rows(keys) < 0).tolist()
        first = {keys[place]: place for place in reversed(missing)}
        return sorted(first.values())

    def _encode(self, array: np.ndarray) -> bytes:
        if self.quality is None:
            return array.tobytes()
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "JPEG", quality=self.quality, subsampling=0)
        return buffer.getvalue()

    def _add_source(self, source: str) -> None:
        """Adds to what the store is of."""
        sources = sorted({*(read_cache_sources(self.folder) or []), *([source] if source else [])})
        write_json(self.folder / METADATA_FILE, {"preparation": self.preparation, "sources": sources})

    def _write_file(self, keys, indices: list[int], decode, pool: ThreadPoolExecutor, bar: tqdm) -> None:
        name = uuid4().hex
        partial = self.folder / f".{name}.partial"
        try:
            with ArrowWriter(features=FEATURES, path=str(partial), writer_batch_size=BATCH_SIZE) as writer:
                for batch, decoded in _prefetch_batches(pool, decode, indices):
                    kept = [(keys[place], *found) for place, found in zip(batch, decoded) if found is not None]
                    if kept:
                        writer.write_batch(
                            {
                                "key": [key for key, _, _ in kept],
                                "pixels": [self._encode(array) for _, array, _ in kept],
                                "shape": [list(array.shape) for _, array, _ in kept],
                                "digest": [digest for _, _, digest in kept],
                            }
                        )
                    bar.update(len(batch))
                count, _ = writer.finalize()
            if count:
                partial.replace(self.folder / f"{name}.arrow")
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise CacheFullError(
                f"The disk of {self.folder} became full while prepared images were written."
            ) from error
        finally:
            partial.unlink(missing_ok=True)

    def rows(self, keys: Sequence[str]) -> tuple[datasets.Dataset, np.ndarray]:
        """A data set that holds the images, in arrow format, and the row of each key in it.

        Raises:
            NoRoom: some are not there any more.
        """
        rows, files = self._find_rows(keys), self._files()
        if len(rows) and rows.min() < 0:
            raise CacheFullError(f"Prepared images of {self.folder} are gone again: another run made room for its own.")
        ends = np.cumsum([len(_open_arrow_file(path)) for path in files])
        for path in (files[place] for place in np.unique(np.searchsorted(ends, rows, side="right"))):
            with suppress(OSError):  # of a cache that is shared and belongs to somebody else
                os.utime(path)  # used now: those that were used longest ago make room for others
        return datasets.concatenate_datasets([_open_arrow_file(path) for path in files]).with_format("arrow"), rows


def _decode_some(missing: list[int], decode: Callable, pool: ThreadPoolExecutor) -> dict[int, DecodedImage]:
    """Some images from all over the list, decoded ahead; those that cannot be are met again in their turn."""
    some = missing[:: max(1, len(missing) // NUM_SIZE_SAMPLES)][:NUM_SIZE_SAMPLES]
    begun = {place: pool.submit(decode, place) for place in some}
    wait(begun.values())
    found = {place: future.result() for place, future in begun.items() if future.exception() is None}
    return {place: kept for place, kept in found.items() if kept is not None}


def _estimate_total_bytes(count: int, samples: list[bytes]) -> int:
    """What so many images will take, told by some of them."""
    return round(count * float(np.mean([len(kept) for kept in samples]))) if samples else 0


def decode_cached_pixels(content: Any, shape: list[int], quality: int | None) -> np.ndarray:
    """What a store of a quality holds of an image -> uint8 (height, width, 3), read-only."""
    if quality is None:
        return np.frombuffer(content, dtype=np.uint8).reshape(shape)
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
        return np.asarray(image)


def _log_jpeg_loss(quality: int, arrays: list[np.ndarray], encode: Callable[[np.ndarray], bytes]) -> None:
    """Logs how far images kept as JPEG are from the images, told by some of them."""
    if not arrays:
        return
    kept = [encode(array) for array in arrays]
    off = [decode_cached_pixels(k, list(a.shape), quality).astype(int) - a for k, a in zip(kept, arrays)]
    mean = float(np.mean([np.abs(difference).mean() for difference in off]))
    share = sum(map(len, kept)) / sum(array.nbytes for array in arrays)
    logger.info(
        "Training images are kept as JPEG of quality %d: %.2f of the room of their pixels, which differ by %.2f of 255 "
        "levels on average (of %d images).",
        quality,
        share,
        mean,
        len(arrays),
    )


def _prefetch_batches(
    pool: ThreadPoolExecutor, decode: Callable, indices: list[int]
) -> Iterator[tuple[list[int], list]]:
    """Places and what `decode` makes of them, batch by batch; the next batch is decoded meanwhile."""
    before = None
    for start in range(0, len(indices), BATCH_SIZE):
        batch = indices[start : start + BATCH_SIZE]
        begun = batch, pool.map(decode, batch)
        if before:
            yield before[0], list(before[1])
        before = begun
    if before:
        yield before[0], list(before[1])
