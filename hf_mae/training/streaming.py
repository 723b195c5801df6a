"""Streaming of unlabelled images for training, with the position of every loader in each checkpoint.

Each loader (a worker of a process) reads its own files; the files of a loader and their order are random in each epoch.
Images are shuffled within consecutive windows. A resumed run continues with the next image, and reads again only the
file that was being read.
"""

import logging
import time
import warnings
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Image
from torch.utils.data import DataLoader

from ..data.checks.contamination import file_stem
from ..data.images.image_error import summarize_image_error
from ..data.images.image_io import read_rgb
from ..data.images.messages import ImageMessage
from ..data.images.seeding import seed_all
from ..data.images.torch_datasets import collate
from ..data.images.transforms import TrainingTransform
from ..data.messages import DataMessage
from ..data.sources.streams import NamedImage, iter_stream_images
from ..errors import UsageError, first_error_line, warn
from ..files.archive_members import is_remote
from ..files.atomic import atomic_write_file
from ..settings.limits import CarriesLimits
from .dataloader_signals import make_workers_signal_safe
from .messages import TrainingMessage

logger = logging.getLogger(__name__)

SHUFFLE_WINDOW = 256  # images that are shuffled together
MAX_ATTEMPTS, RETRY_SECONDS = 5, 2.0  # of reading a remote file; each wait is twice as long as the one before
# State of a loader at the start of an epoch: the file and its row where a window begins, the number of the window, and
# the position in its random order.
INITIAL_STATE = {"epoch": 0, "file": 0, "row": 0, "window": 0, "position": 0, "num_yielded": 0}


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
        self._state: dict[str, int] = dict(INITIAL_STATE)

    def state_dict(self) -> dict[str, int]:
        """Returns the position of this loader in the stream."""
        return dict(self._state)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continues from a saved position."""
        self._state = dict(state)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            epoch = self._state["epoch"]
            for name, image in self._iter_images(epoch):
                if (item := self._make_item(name, image, epoch)) is not None:
                    self._state["num_yielded"] += 1
                    yield item
            if not self._state["num_yielded"]:
                raise UsageError(TrainingMessage.NO_READABLE_STREAMED_IMAGE, file=self.files[0])
            self._state = INITIAL_STATE | {"epoch": epoch + 1}

    def _iter_images(self, epoch: int) -> Iterator[NamedImage]:
        """Yields the remaining images of an epoch, window by window."""
        worker = torch.utils.data.get_worker_info()
        worker_id, num_workers = (worker.id, worker.num_workers) if worker else (0, 1)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.files))
        files = [self.files[index] for index in order[self.rank :: self.world_size][worker_id::num_workers]]
        rows = _iter_rows(files, self._state["file"], self._state["row"])
        while window := list(islice(rows, SHUFFLE_WINDOW)):
            rng = np.random.default_rng([self.seed, epoch, self.rank, worker_id, self._state["window"]])
            for index in rng.permutation(len(window))[self._state["position"] :]:
                self._state["position"] += 1
                yield window[index][-1]
            file, row, _ = window[-1]
            self._state |= {"file": file, "row": row, "window": self._state["window"] + 1, "position": 0}

    def _make_item(self, name: str, encoded: dict[str, Any], epoch: int) -> dict[str, Any] | None:
        if file_stem(name) in self.excluded_stems:
            return None
        try:
            image = read_rgb(encoded)
        except Exception as error:  # each Pillow plugin raises its own types
            reason = summarize_image_error(error)
            if self.on_bad_image == "error":
                raise UsageError(ImageMessage.UNREADABLE_IMAGE, file=name, reason=reason) from None
            warn(logger, TrainingMessage.STREAMED_IMAGE_SKIPPED, file=name, reason=reason)
            return None
        with seed_all(self.seed, epoch, zlib.crc32(name.encode())):
            resized = image if self.transform.resize is None else self.transform.resize(image)
            return {"pixel_values": self.transform.augment(resized)}


def _iter_rows(files: list[str], first_file: int, first_row: int) -> Iterator[tuple[int, int, NamedImage]]:
    """Yields the images of files from a row of the first one: index of the file, rows of it so far, image."""
    for index in range(first_file, len(files)):
        row, attempt = first_row if index == first_file else 0, 1
        while True:
            try:
                for image in islice(iter_stream_images(files[index]), row, None):
                    row += 1
                    yield index, row, image
                break
            except UsageError:
                raise
            except Exception as error:  # see `iter_stream_images`
                if attempt == MAX_ATTEMPTS or not is_remote(files[index]):
                    reason = first_error_line(error)
                    raise UsageError(DataMessage.UNREADABLE_STREAM_FILE, file=files[index], reason=reason) from None
            time.sleep(RETRY_SECONDS * 2 ** (attempt - 1))
            attempt += 1


def check_enough_stream_files(files: list[str], num_loaders: int, source: str) -> None:
    """Raises UsageError if there are fewer files than loaders."""
    if len(files) < num_loaders:
        raise UsageError(TrainingMessage.TOO_FEW_STREAM_FILES, source=source, count=len(files), num_loaders=num_loaders)


def load_first_images(files: list[str], count: int) -> Dataset:
    """Loads the first images of a stream, for the reconstructions that training logs."""
    images = [image for _, _, image in islice(_iter_rows(files[:1], 0, 0), count)]
    columns = {"image": [image for _, image in images], "file_name": [name for name, _ in images]}
    return Dataset.from_dict(columns).cast_column("image", Image())


class StreamLoader:
    """Resumable loader of an infinite stream (torchdata's `StatefulDataLoader`).

    Args:
        stream: stream of this process.
        args: training arguments (workers, pinned memory, process index).

    Raises:
        UsageError: If torchdata is not installed.
    """

    def __init__(self, stream: ImageStream, batch_size: int, args: Any):
        try:
            from torchdata.stateful_dataloader import StatefulDataLoader
        except ImportError:
            raise UsageError(TrainingMessage.TORCHDATA_MISSING) from None
        self.file_name = f"stream-{args.process_index}.pt"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'set_vital' is deprecated")  # torchdata 0.11 with torch 2.14
            loader = StatefulDataLoader(
                stream,
                batch_size,
                collate_fn=collate,
                num_workers=args.dataloader_num_workers,
                pin_memory=args.dataloader_pin_memory,
                prefetch_factor=args.dataloader_prefetch_factor,
                drop_last=True,
            )
        self.loader: Any = make_workers_signal_safe(loader)

    @property
    def dataloader(self) -> DataLoader:
        """The loader that the Trainer iterates over."""
        loader: DataLoader = self.loader
        return loader

    def save(self, checkpoint: Path) -> None:
        """Saves the state of every worker."""
        state = {"workers": self.loader.num_workers, "loader": self.loader.state_dict()}
        with atomic_write_file(checkpoint / self.file_name) as temporary:
            torch.save(state, temporary)

    def load(self, checkpoint: Path) -> None:
        """Restores the state of every worker.

        Raises:
            UsageError: If the checkpoint has no state for this process, or a different number of workers.
        """
        path = checkpoint / self.file_name
        if not path.is_file():
            raise UsageError(TrainingMessage.CHECKPOINT_WITHOUT_STREAM, path=checkpoint)
        state = torch.load(path, weights_only=True)
        saved, workers = state["workers"], self.loader.num_workers
        if saved != workers:
            raise UsageError(TrainingMessage.STREAM_WORKERS_DIFFER, path=checkpoint, saved=saved, workers=workers)
        self.loader.load_state_dict(state["loader"])
