"""Cache of decoded images on disk, memory-mapped and shared by all runs, splits and folds.

A pixel cache is a folder of Arrow files (`key`, `pixels` as bytes, `shape`, `digest`), one folder per preprocessing.
Files are written atomically, so an interruption loses only the file being written.

The required disk space is estimated before the first byte is written. If it is not available, the least recently used
files are evicted (`cache_eviction.evict_lru`); if that is not sufficient, nothing is cached, and the caller decodes the
images at every access.
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

from ...compat.datasets import ArrowWriter
from ...errors import inform
from ...files.atomic import write_json
from ...files.caches import cache_path
from ...files.locks import wait_for_lock
from ...settings.limits import count_usable_cores
from .cache_eviction import IMAGES_DIR, METADATA_FILE, CacheFullError, evict_lru, read_cache_sources
from .messages import ImageMessage

logger = logging.getLogger(__name__)

DECODING_VERSION = 4  # of the pixels that `decoding` computes; a change invalidates all pixel caches
BATCH_SIZE = 64  # images that are decoded and written at once
MIN_IMAGES_PER_FILE, MAX_IMAGES_PER_FILE = 512, 8192  # in an Arrow file
TARGET_NUM_FILES = 64  # for a large dataset, so that few files are open
NUM_SIZE_SAMPLES = 8  # images that are decoded to estimate the size of all
DecodedImage = tuple[np.ndarray, str]  # uint8 (height, width, 3), and the digest of the image before resizing

FEATURES = datasets.Features(
    {
        "key": datasets.Value("string"),
        "pixels": datasets.Value("binary"),
        "shape": datasets.List(datasets.Value("int32")),
        "digest": datasets.Value("string"),  # of the image before resizing
    }
)


@lru_cache(maxsize=1024)
def _open_arrow_file(path: Path) -> datasets.Dataset:
    return datasets.Dataset.from_file(str(path))


def _column(path: Path, name: str) -> list[pa.Array]:
    return _open_arrow_file(path).data.column(name).chunks


class PixelCache:
    """Decoded images by key.

    Args:
        preparation: description of the preprocessing, which identifies the cache.
        quality: store the images as JPEG of this quality (without chroma subsampling); None: as raw pixels.
    """

    def __init__(self, preparation: str, quality: int | None = None):
        self.preparation = preparation if quality is None else f"{preparation}, JPEG of quality {quality}"
        self.quality = quality
        name = hashlib.sha256(f"{self.preparation} {DECODING_VERSION}".encode()).hexdigest()[:32]
        self._entry = f"{IMAGES_DIR}/{name}"
        self.folder = cache_path(self._entry)

    def get_digests(self, keys: Sequence[str]) -> list[str]:
        """Returns the digests of the images before resizing; an empty string for an image that is not in the cache."""
        files, rows = self._list_files(), self._find_rows(keys)
        column = pa.chunked_array([[""], *(chunk for file in files for chunk in _column(file, "digest"))], pa.string())
        return column.take(pa.array(rows + 1)).to_pylist()

    def _find_rows(self, keys: Sequence[str]) -> np.ndarray:
        """Finds the row of each key in the concatenation of all files; -1 if it is not in the cache.

        Arrow searches: with millions of keys, a dict would need a gigabyte.
        """
        column = pa.chunked_array([chunk for file in self._list_files() for chunk in _column(file, "key")], pa.string())
        rows = pc.index_in(pa.array(keys, pa.string()), value_set=column.combine_chunks())
        return rows.fill_null(-1).to_numpy().astype(np.int64)

    def _list_files(self) -> list[Path]:
        return sorted(self.folder.glob("*.arrow"))

    def add(
        self,
        keys: Sequence[str],
        decode: Callable[[int], DecodedImage | None],
        num_workers: int | None = None,
        source: str = "",
    ) -> None:
        """Decodes the images that are not in the cache, in threads.

        Forked processes would deadlock: a fork does not contain the threads that torch has started.

        Args:
            keys: keys of the images.
            decode: maps an index into `keys` to uint8 (height, width, 3) and a digest; None if the image must not be
                cached.
            num_workers: number of threads.
            source: folder of the images, for `hf-mae cache`.

        Raises:
            CacheFullError: If the disk or `--cache_limit` is too small.
        """
        if not self._find_missing(keys):
            return
        self.folder = cache_path(self._entry, for_writing=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        waiting_message = f"Waiting for another run that prepares these images in {self.folder}."
        with (
            ThreadPoolExecutor(num_workers or count_usable_cores()) as pool,
            wait_for_lock(self.folder / "lock", waiting_message),
        ):
            for partial in self.folder.glob(".*.partial"):  # of a killed run
                partial.unlink()
            missing = self._find_missing(keys)
            samples = _decode_samples(missing, decode, pool)
            encoded = [self._encode(array) for array, _ in samples.values()]
            evict_lru(_estimate_total_bytes(len(missing), encoded), self.folder)
            if self.quality is not None:
                _log_jpeg_loss(self.quality, [array for array, _ in samples.values()], encoded)
            self._add_source(source)

            def decode_once(index: int) -> DecodedImage | None:
                return samples.pop(index) if index in samples else decode(index)

            num_cached = len(keys) - len(missing)
            with tqdm(total=len(keys), initial=num_cached, desc="Decoding images", unit="image") as bar:
                size = min(max(MIN_IMAGES_PER_FILE, len(missing) // TARGET_NUM_FILES), MAX_IMAGES_PER_FILE)
                for start in range(0, len(missing), size):
                    self._write_file(keys, missing[start : start + size], decode_once, pool, bar)

    def _find_missing(self, keys: Sequence[str]) -> list[int]:
        """Finds the indices of the keys that are not in the cache; a repeated key counts once."""
        missing = np.flatnonzero(self._find_rows(keys) < 0).tolist()
        first_index = {keys[index]: index for index in reversed(missing)}
        return sorted(first_index.values())

    def _encode(self, array: np.ndarray) -> bytes:
        if self.quality is None:
            return array.tobytes()
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "JPEG", quality=self.quality, subsampling=0)
        return buffer.getvalue()

    def _add_source(self, source: str) -> None:
        """Adds a source to the metadata file."""
        sources = sorted({*(read_cache_sources(self.folder) or []), *([source] if source else [])})
        write_json(self.folder / METADATA_FILE, {"preparation": self.preparation, "sources": sources})

    def _write_file(self, keys, indices: list[int], decode, pool: ThreadPoolExecutor, bar: tqdm) -> None:
        name = uuid4().hex
        partial = self.folder / f".{name}.partial"
        try:
            with ArrowWriter(features=FEATURES, path=str(partial), writer_batch_size=BATCH_SIZE) as writer:
                for batch, decoded in _prefetch_batches(pool, decode, indices):
                    rows = [(keys[index], *image) for index, image in zip(batch, decoded) if image is not None]
                    if rows:
                        writer.write_batch(
                            {
                                "key": [key for key, _, _ in rows],
                                "pixels": [self._encode(array) for _, array, _ in rows],
                                "shape": [list(array.shape) for _, array, _ in rows],
                                "digest": [digest for _, _, digest in rows],
                            }
                        )
                    bar.update(len(batch))
                count, _ = writer.finalize()
            if count:
                partial.replace(self.folder / f"{name}.arrow")
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise CacheFullError(ImageMessage.DISK_BECAME_FULL, folder=self.folder) from error
        finally:
            partial.unlink(missing_ok=True)

    def get_rows(self, keys: Sequence[str]) -> tuple[datasets.Dataset, np.ndarray]:
        """Returns a dataset in Arrow format that contains the images, and the row of each key.

        Raises:
            CacheFullError: If another run has evicted some of the images.
        """
        rows, files = self._find_rows(keys), self._list_files()
        if len(rows) and rows.min() < 0:
            raise CacheFullError(ImageMessage.CACHED_IMAGES_REMOVED, folder=self.folder)
        ends = np.cumsum([len(_open_arrow_file(path)) for path in files])
        for path in (files[index] for index in np.unique(np.searchsorted(ends, rows, side="right"))):
            with suppress(OSError):  # a shared cache can belong to another user
                os.utime(path)  # time of the last use, for LRU eviction
        return datasets.concatenate_datasets([_open_arrow_file(path) for path in files]).with_format("arrow"), rows


def _decode_samples(missing: list[int], decode: Callable, pool: ThreadPoolExecutor) -> dict[int, DecodedImage]:
    """Decodes evenly spaced images of the list; errors are ignored here and occur again when all are decoded."""
    indices = missing[:: max(1, len(missing) // NUM_SIZE_SAMPLES)][:NUM_SIZE_SAMPLES]
    futures = {index: pool.submit(decode, index) for index in indices}
    wait(futures.values())
    images = {index: future.result() for index, future in futures.items() if future.exception() is None}
    return {index: image for index, image in images.items() if image is not None}


def _estimate_total_bytes(count: int, samples: list[bytes]) -> int:
    """Estimates the size of `count` images from encoded samples."""
    return round(count * float(np.mean([len(sample) for sample in samples]))) if samples else 0


def decode_cached_pixels(content: Any, shape: list[int], quality: int | None) -> np.ndarray:
    """Decodes an image of a cache with this `quality` into uint8 (height, width, 3), read-only."""
    if quality is None:
        return np.frombuffer(content, dtype=np.uint8).reshape(shape)
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
        return np.asarray(image)


def _log_jpeg_loss(quality: int, arrays: list[np.ndarray], encoded: list[bytes]) -> None:
    """Logs the compression ratio and the error of JPEG, measured on sample images."""
    if not arrays:
        return
    errors = [
        np.abs(decode_cached_pixels(content, list(array.shape), quality).astype(int) - array).mean()
        for content, array in zip(encoded, arrays)
    ]
    fraction = sum(map(len, encoded)) / sum(array.nbytes for array in arrays)
    inform(
        logger,
        ImageMessage.JPEG_CACHE,
        quality=quality,
        fraction=fraction,
        difference=float(np.mean(errors)),
        images=len(arrays),
    )


def _prefetch_batches(
    pool: ThreadPoolExecutor, decode: Callable, indices: list[int]
) -> Iterator[tuple[list[int], list]]:
    """Yields batches of indices and decoded images; the next batch is decoded in the meantime."""
    pending = None
    for start in range(0, len(indices), BATCH_SIZE):
        batch = indices[start : start + BATCH_SIZE]
        submitted = batch, pool.map(decode, batch)
        if pending:
            yield pending[0], list(pending[1])
        pending = submitted
    if pending:
        yield pending[0], list(pending[1])
