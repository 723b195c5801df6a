"""Streaming of unlabelled images from tar shards and parquet files: local, in an object store, or on the Hub.

Each loader (a worker of a process) reads its own files; the files of a loader and their order are random in each epoch.
Rows are shuffled within consecutive windows. The state of a loader is saved in checkpoints: a resumed run continues
with the next image and reads again only the file that was being read.
"""

import glob
import hashlib
import logging
import os
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Image, load_dataset
from datasets.distributed import split_dataset_by_node

from ...compat.datasets import get_stream_features, patch_s3fs_streaming
from ...errors import UsageError, first_error_line, warn
from ...files.archive_members import file_system, is_remote
from ...settings.limits import CarriesLimits
from ..checks.contamination import file_stem
from ..sources.kinds import SourceOptions
from ..sources.source import open_source
from .image_error import summarize_image_error
from .image_io import read_rgb
from .messages import ImageMessage
from .seeding import seed_all
from .transforms import TrainingTransform

logger = logging.getLogger(__name__)

BUILDERS = {".tar": "webdataset", ".parquet": "parquet"}
SHUFFLE_WINDOW = 256  # rows that are shuffled together
IMAGE_COLUMN = "image"
INITIAL_STATE = {"epoch": 0, "source": None, "window": 0, "row": 0, "num_yielded": 0}  # at the start of an epoch
NamedImage = tuple[str, dict[str, Any]]  # name, undecoded image


def find_stream_files(source: str) -> tuple[list[str], int | None]:
    """Lists the files of a stream, sorted, and the number of images if it is known without reading them.

    Args:
        source: a folder or URL of tar or parquet files, a single file, a pattern, or a Hub id.

    Raises:
        UsageError: If the source cannot be reached, or contains no such files.
    """
    try:
        files, num_images = open_source(source, SourceOptions(labelled=False)).stream_files()
    except UsageError:
        raise
    except Exception as error:  # fsspec, datasets and huggingface_hub raise many types
        raise UsageError(ImageMessage.STREAM_UNREACHABLE, source=source, reason=first_error_line(error)) from None
    builders = {_builder_name(file) for file in files}
    if not builders - {None}:
        raise UsageError(ImageMessage.NO_STREAM_FILES, source=source, suffixes=" or ".join(BUILDERS))
    if len(builders) > 1:
        names = sorted(os.path.basename(file) for file in files if _builder_name(file) != _builder_name(files[0]))
        raise UsageError(ImageMessage.STREAM_FILES_OF_SEVERAL_KINDS, source=source, file=files[0], names=names[:3])
    return files, num_images


def _builder_name(name: str) -> str | None:
    return BUILDERS.get(os.path.splitext(name.partition("?")[0])[1].lower())


class ImageStream(CarriesLimits, torch.utils.data.IterableDataset):
    """An infinite stream of items `{"pixel_values": float32 (3, H, W)}`, epoch after epoch.

    The augmentation of an image depends on (seed, epoch, name) alone. The order of the images also depends on the
    number of loaders.

    Args:
        files: result of `find_stream_files`.
        transform: result of `pretraining_transform`.
        seed: of the order and the augmentation.
        rank, world_size: this process, and the number of processes that share the files.
        on_bad_image: `error` raises an error for an unreadable image; `skip` skips it.
        excluded_stems: images to skip, by the stem of their name (see `file_stem`).
    """

    def __init__(
        self,
        files: list[str],
        transform: TrainingTransform,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        on_bad_image: str = "error",
        excluded_stems: frozenset[str] = frozenset(),
    ):
        self.excluded_stems = excluded_stems
        self.files, self.transform, self.seed = files, transform, seed
        self.rank, self.world_size, self.on_bad_image = rank, world_size, on_bad_image
        self._state: dict[str, Any] = dict(INITIAL_STATE)

    def state_dict(self) -> dict[str, Any]:
        """Returns the position of this loader in the stream."""
        return dict(self._state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a saved position."""
        self._state = dict(state)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            epoch = self._state["epoch"]
            for name, image in self._iter_rows(epoch):
                if (item := self._make_item(name, image, epoch)) is not None:
                    self._state["num_yielded"] += 1
                    yield item
            if not self._state["num_yielded"]:
                raise UsageError(ImageMessage.NO_READABLE_STREAMED_IMAGE, file=self.files[0])
            self._state = INITIAL_STATE | {"epoch": epoch + 1}

    def _iter_rows(self, epoch: int) -> Iterator[NamedImage]:
        """Yields the remaining rows of an epoch, window by window."""
        rows = self._open_epoch(epoch)
        if self._state["source"] is not None:
            rows.load_state_dict(self._state["source"])
        worker = torch.utils.data.get_worker_info()
        iterator, loader = _iter_named_images(rows), [self.rank, worker.id if worker else 0]
        while window := list(islice(iterator, SHUFFLE_WINDOW)):
            next_source = rows.state_dict()
            rng = np.random.default_rng([self.seed, epoch, *loader, self._state["window"]])
            for index in rng.permutation(len(window))[self._state["row"] :]:
                self._state["row"] += 1
                yield window[index]
            self._state |= {"source": next_source, "window": self._state["window"] + 1, "row": 0}

    def _open_epoch(self, epoch: int) -> Any:
        """Opens the files in the order of an epoch; `datasets` distributes them among processes and workers."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.files))
        rows = _open_rows([self.files[index] for index in order])
        return split_dataset_by_node(rows, self.rank, self.world_size) if self.world_size > 1 else rows

    def _make_item(self, name: str, encoded: dict[str, Any], epoch: int) -> dict[str, Any] | None:
        if file_stem(name) in self.excluded_stems:
            return None
        try:
            image = read_rgb(encoded)
        except Exception as error:  # each Pillow plugin raises its own types
            reason = summarize_image_error(error)
            if self.on_bad_image == "error":
                raise UsageError(ImageMessage.UNREADABLE_IMAGE, file=name, reason=reason) from None
            warn(logger, ImageMessage.STREAMED_IMAGE_SKIPPED, file=name, reason=reason)
            return None
        with seed_all(self.seed, epoch, zlib.crc32(name.encode())):
            resized = image if self.transform.resize is None else self.transform.resize(image)
            return {"pixel_values": self.transform.augment(resized)}


def _open_rows(files: list[str]) -> Any:
    """Opens the rows of files, with undecoded images in `IMAGE_COLUMN`."""
    if files[0].startswith(("s3://", "s3a://")):
        patch_s3fs_streaming()
    patterns = [file if is_remote(file) else glob.escape(file) for file in files]
    try:
        rows = load_dataset(_builder_name(files[0]), data_files=patterns, split="train", streaming=True)
        features = get_stream_features(rows)
    except Exception as error:  # as in `find_stream_files`
        reason = first_error_line(error)
        raise UsageError(ImageMessage.UNREADABLE_STREAM_FILE, file=files[0], reason=reason) from None
    column = next((name for name, feature in features.items() if isinstance(feature, Image)), None)
    if column is None:
        raise UsageError(ImageMessage.NO_IMAGE_COLUMN, file=files[0], columns=list(features))
    rows = rows.cast_column(column, Image(decode=False))
    return rows if column == IMAGE_COLUMN else rows.rename_column(column, IMAGE_COLUMN)


def _iter_named_images(rows: Any) -> Iterator[NamedImage]:
    try:
        for number, row in enumerate(rows):
            metadata = row.get("json") if isinstance(row.get("json"), dict) else row
            image = row[IMAGE_COLUMN]
            name = metadata.get("file_name") or image.get("path") or row.get("__key__") or f"image {number}"
            yield str(name), image
    except Exception as error:  # as in `find_stream_files`
        raise UsageError(ImageMessage.STREAM_INTERRUPTED, reason=first_error_line(error)) from None


def stream_fingerprint(files: list[str]) -> str:
    """Returns the fingerprint of the names and sizes of the files; independent of their folder."""
    digest = hashlib.sha256()
    for file in files:
        system, path = file_system(file)
        digest.update(f"{os.path.basename(file)}\0{system.info(path).get('size')}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def check_enough_stream_files(files: list[str], num_loaders: int, source: str) -> None:
    """Raises UsageError if there are fewer files than loaders."""
    if len(files) < num_loaders:
        raise UsageError(ImageMessage.TOO_FEW_STREAM_FILES, source=source, count=len(files), num_loaders=num_loaders)


def load_first_images(files: list[str], count: int) -> Dataset:
    """Loads the first images of a stream, for the reconstructions that training logs."""
    rows = list(islice(_iter_named_images(_open_rows(files[:1])), count))
    columns = {"image": [image for _, image in rows], "file_name": [name for name, _ in rows]}
    return Dataset.from_dict(columns).cast_column("image", Image())
