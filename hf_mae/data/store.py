"""Decoded images on disk, memory-mapped: what was decoded once is not decoded again, whatever the run, split or fold.

A store is a folder of Arrow files (`key`, `pixels` as bytes, `shape`, `digest`), one for each preparation of images.
A file appears when it is whole, so that an interruption costs no more than the one that was being written.

The stores know the disk: what they will take is estimated before the first byte is written. Files that were used
longest ago go where there is no room (`room.make_room`); where that is not enough, nothing is kept, and the caller
decodes anew.
"""

import errno
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

import datasets
import numpy as np
from tqdm.auto import tqdm

from ..compat.datasets import ArrowWriter
from ..files.caches import cache_folder
from ..files.locks import locked
from ..files.writing import write_json
from .room import ABOUT, NoRoom, make_room, sources_of

logger = logging.getLogger(__name__)

RULE = 2  # of `opening`: what a file's levels become; another rule makes other stores
FILE_IMAGES, BATCH_IMAGES = 512, 64  # in an Arrow file; in memory
Decoded = tuple[np.ndarray, str]  # uint8 (height, width, 3), and the digest of the whole image
MEASURED = 8  # images that are decoded to tell what all will take

FEATURES = datasets.Features(
    {
        "key": datasets.Value("string"),
        "pixels": datasets.Value("binary"),
        "shape": datasets.List(datasets.Value("int32")),
        "digest": datasets.Value("string"),  # of the whole image, before it was resized
    }
)


@lru_cache(maxsize=1024)
def _open(path: Path) -> datasets.Dataset:
    return datasets.Dataset.from_file(str(path))


class PixelStore:
    """Images by key.

    Args:
        preparation: what is done to the images; another one is another store.
    """

    def __init__(self, preparation: str):
        self.preparation = preparation
        name = hashlib.sha256(f"{preparation} {RULE}".encode()).hexdigest()[:32]
        self.folder = cache_folder() / "images" / name
        self.folder.mkdir(parents=True, exist_ok=True)

    def places(self) -> dict[str, tuple[Path, int]]:
        """Key -> file and row, of everything that is there."""
        return {key: (path, row) for path in self._files() for row, key in enumerate(_open(path)["key"][:])}

    def digests(self) -> dict[str, str]:
        """Key -> digest of the image's own pixels, of everything that is there."""
        opened = [_open(path) for path in self._files()]
        return {key: digest for part in opened for key, digest in zip(part["key"][:], part["digest"][:])}

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
        with ThreadPoolExecutor(num_workers or os.cpu_count() or 1) as pool, locked(self.folder / "lock", waiting):
            for left_behind in self.folder.glob(".*.partial"):  # by a run that was killed
                left_behind.unlink()
            missing = self._missing(keys)
            early = _some_of(missing, decode, pool)
            make_room(_bytes_of_all(len(missing), early), self.folder)
            self._note(source)

            def once(place: int) -> Decoded | None:
                return early.pop(place) if place in early else decode(place)

            done = len(keys) - len(missing)
            with tqdm(total=len(keys), initial=done, desc="Decoding images", unit="image") as bar:
                for start in range(0, len(missing), FILE_IMAGES):
                    self._write(keys, missing[start : start + FILE_IMAGES], once, pool, bar)

    def _missing(self, keys: Sequence[str]) -> list[int]:
        there = self.places()
        first = {key: place for place, key in reversed(list(enumerate(keys))) if key not in there}
        return sorted(first.values())

    def _note(self, source: str) -> None:
        """Adds to what the store is of."""
        sources = sorted({*(sources_of(self.folder) or []), *([source] if source else [])})
        write_json(self.folder / ABOUT, {"preparation": self.preparation, "sources": sources})

    def _write(self, keys, chosen: list[int], decode, pool: ThreadPoolExecutor, bar: tqdm) -> None:
        name = uuid4().hex
        partial = self.folder / f".{name}.partial"
        try:
            with ArrowWriter(features=FEATURES, path=str(partial), writer_batch_size=BATCH_IMAGES) as writer:
                for batch, decoded in _a_batch_ahead(pool, decode, chosen):
                    kept = [(keys[place], *found) for place, found in zip(batch, decoded) if found is not None]
                    if kept:
                        writer.write_batch(
                            {
                                "key": [key for key, _, _ in kept],
                                "pixels": [array.tobytes() for _, array, _ in kept],
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
            raise NoRoom(f"The disk of {self.folder} became full while prepared images were written.") from error
        finally:
            partial.unlink(missing_ok=True)

    def rows(self, keys: Sequence[str]) -> tuple[datasets.Dataset, np.ndarray]:
        """A data set that holds the images, in arrow format, and the row of each key in it."""
        places = self.places()
        wanted = [places[key] for key in keys]
        files = sorted({path for path, _ in wanted})
        for path in files:
            with suppress(OSError):  # of a cache that is shared and belongs to somebody else
                os.utime(path)  # used now: those that were used longest ago make room for others
        starts = dict(zip(files, np.cumsum([0, *(len(_open(path)) for path in files)])))
        whole = datasets.concatenate_datasets([_open(path) for path in files]).with_format("arrow")
        return whole, np.array([starts[path] + row for path, row in wanted])


def _some_of(missing: list[int], decode: Callable, pool: ThreadPoolExecutor) -> dict[int, Decoded]:
    """Some images from all over the list, decoded ahead; those that cannot be are met again in their turn."""
    some = missing[:: max(1, len(missing) // MEASURED)][:MEASURED]
    begun = {place: pool.submit(decode, place) for place in some}
    wait(begun.values())
    found = {place: future.result() for place, future in begun.items() if future.exception() is None}
    return {place: kept for place, kept in found.items() if kept is not None}


def _bytes_of_all(count: int, some: dict[int, Decoded]) -> int:
    """What so many images will take, told by some of them."""
    return round(count * float(np.mean([array.nbytes for array, _ in some.values()]))) if some else 0


def _a_batch_ahead(pool: ThreadPoolExecutor, decode: Callable, places: list[int]) -> Iterator[tuple[list[int], list]]:
    """Places and what `decode` makes of them, batch by batch; the next batch is decoded meanwhile."""
    before = None
    for start in range(0, len(places), BATCH_IMAGES):
        batch = places[start : start + BATCH_IMAGES]
        begun = batch, pool.map(decode, batch)
        if before:
            yield before[0], list(before[1])
        before = begun
    if before:
        yield before[0], list(before[1])
