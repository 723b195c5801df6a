"""Unlabelled images that are read file by file as they come: tar shards and parquet files here, on an object store or
on the Hub, which no disk has to hold.

Every loader (a process's worker) goes through files of its own; which, and in which order, is drawn for each epoch.
Rows of a file are drawn from windows that follow each other. A state tells the place of every loader, so that a run
goes on with the very images that come next, and reads no file again but the one that it was in.
"""

import hashlib
import logging
import os
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from datasets import Dataset, Image, load_dataset, load_dataset_builder
from datasets.distributed import split_dataset_by_node

from ..compat.datasets import get_stream_features, patch_s3fs_streaming
from ..errors import UsageError, first_error_line, pluralize
from ..files.archive_members import file_system, is_remote
from .archive_index import INDEX_FILE
from .exclude_list import file_stem
from .image_io import read_rgb, summarize_image_error
from .seeding import seed_all
from .transforms import TrainingTransform

logger = logging.getLogger(__name__)

BUILDERS = {".tar": "webdataset", ".parquet": "parquet"}
SHUFFLE_WINDOW = 256  # rows that are drawn from at a time
IMAGE_COLUMN = "image"  # the column
INITIAL_STATE = {"epoch": 0, "source": None, "window": 0, "row": 0, "given": 0}  # of an epoch
NamedImage = tuple[str, dict[str, Any]]  # a name, and an undecoded image


def find_stream_files(source: str) -> tuple[list[str], int | None]:
    """The files of a stream, sorted, and how many images they hold, where that is known without reading them.

    Args:
        source: a folder or URL of tar or parquet files, one of them, a pattern, or a Hub id.

    Raises:
        UsageError: it cannot be reached, or holds no such file.
    """
    try:
        found = _list_hub_files(source) if _is_hub_id(source) else _list_stored_files(source)
    except Exception as error:  # fsspec, datasets and huggingface_hub raise many kinds
        raise UsageError(f"{source} cannot be reached ({first_error_line(error)}).") from None
    if not found[0]:
        raise UsageError(f"{source} holds no {' or '.join(BUILDERS)} files to stream; hf-mae shard makes them.")
    return found


def _is_hub_id(source: str) -> bool:
    return not (is_remote(source) or os.path.exists(source) or "*" in source)


def _list_hub_files(source: str) -> tuple[list[str], int | None]:
    builder = load_dataset_builder(source)
    split = "train" if "train" in builder.config.data_files else next(iter(builder.config.data_files))
    files = [str(file) for file in builder.config.data_files[split] if _builder_name(str(file))]
    known = (builder.info.splits or {}).get(split)
    return sorted(files), known.num_examples if known else None


def _list_stored_files(source: str) -> tuple[list[str], int | None]:
    system, path = file_system(source if is_remote(source) else os.path.abspath(source))
    found = system.glob(path) if "*" in path else [path] if system.isfile(path) else system.find(path)
    whole = [str(system.unstrip_protocol(name)) if is_remote(source) else name for name in found]
    index = next((name for name in found if os.path.basename(name) == INDEX_FILE), None)
    files = sorted(name for name in whole if _builder_name(name) and os.path.basename(name) != INDEX_FILE)
    if index is None:
        return files, None
    with system.open(index, "rb") as file:
        return files, pq.read_metadata(file).num_rows


def _builder_name(name: str) -> str | None:
    return BUILDERS.get(os.path.splitext(name.partition("?")[0])[1].lower())


class ImageStream(torch.utils.data.IterableDataset):
    """Items `{"pixel_values": float32 (3, H, W)}` without an end, epoch after epoch.

    What is drawn for an image depends on (seed, epoch, its name) alone; which images come when, on the number of
    loaders, too.

    Args:
        files: of `find_files`.
        transform: of `pretraining_transform`.
        seed: of the order and of the draws.
        process, processes: this one, from 0, and how many share the files.
        on_bad_image: `error` stops at an image that cannot be read, and names it; `skip` goes on with the next.
        excluded_stems: stems of names that are passed over (`excluded.stem_of`).
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
        """Where this loader is."""
        return dict(self._state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self._state = dict(state)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            epoch = self._state["epoch"]
            for name, image in self._iter_rows(epoch):
                if (item := self._make_item(name, image, epoch)) is not None:
                    self._state["given"] += 1
                    yield item
            if not self._state["given"]:
                raise UsageError(f"{self.files[0]} and the others: not one image can be read.")
            self._state = INITIAL_STATE | {"epoch": epoch + 1}

    def _iter_rows(self, epoch: int) -> Iterator[NamedImage]:
        """The rows of an epoch from where this loader is, window by window."""
        rows = self._open_epoch(epoch)
        if self._state["source"] is not None:
            rows.load_state_dict(self._state["source"])
        worker = torch.utils.data.get_worker_info()
        iterator, loader = _iter_named_images(rows), [self.rank, worker.id if worker else 0]
        while window := list(islice(iterator, SHUFFLE_WINDOW)):
            after = rows.state_dict()
            drawn = np.random.default_rng([self.seed, epoch, *loader, self._state["window"]])
            for place in drawn.permutation(len(window))[self._state["row"] :]:
                self._state["row"] += 1
                yield window[place]
            self._state |= {"source": after, "window": self._state["window"] + 1, "row": 0}

    def _open_epoch(self, epoch: int) -> Any:
        """The files in an order of this epoch; `datasets` shares them among processes, and among workers."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.files))
        rows = _open_rows([self.files[place] for place in order])
        return split_dataset_by_node(rows, self.rank, self.world_size) if self.world_size > 1 else rows

    def _make_item(self, name: str, encoded: dict[str, Any], epoch: int) -> dict[str, Any] | None:
        if file_stem(name) in self.excluded_stems:
            return None
        try:
            image = read_rgb(encoded)
        except Exception as error:  # PIL raises whatever the format's plugin does
            reason = summarize_image_error(error)
            if self.on_bad_image == "error":
                raise UsageError(f"{name} cannot be read ({reason}): mend it, or pass --on_bad_image skip.") from None
            logger.warning("%s cannot be read (%s): the next one takes its place.", name, reason)
            return None
        with seed_all(self.seed, epoch, zlib.crc32(name.encode())):
            resized = image if self.transform.resize is None else self.transform.resize(image)
            return {"pixel_values": self.transform.augment(resized)}


def _open_rows(files: list[str]) -> Any:
    """Rows of files, whose images are not decoded."""
    if files[0].startswith(("s3://", "s3a://")):
        patch_s3fs_streaming()
    try:
        rows = load_dataset(_builder_name(files[0]), data_files=files, split="train", streaming=True)
        features = get_stream_features(rows)
    except Exception as error:  # as of `find_files`
        raise UsageError(f"{files[0]} cannot be read ({first_error_line(error)}).") from None
    column = next((name for name, feature in features.items() if isinstance(feature, Image)), None)
    if column is None:
        raise UsageError(f"{files[0]} has no column of images; it has {', '.join(features)}.")
    rows = rows.cast_column(column, Image(decode=False))
    return rows if column == IMAGE_COLUMN else rows.rename_column(column, IMAGE_COLUMN)


def _iter_named_images(rows: Any) -> Iterator[NamedImage]:
    try:
        for number, row in enumerate(rows):
            told = row.get("json") if isinstance(row.get("json"), dict) else row
            image = row[IMAGE_COLUMN]
            name = told.get("file_name") or image.get("path") or row.get("__key__") or f"image {number}"
            yield str(name), image
    except Exception as error:  # as of `find_files`
        raise UsageError(f"A file of the stream cannot be read ({first_error_line(error)}).") from None


def stream_fingerprint(files: list[str]) -> str:
    """Changes with any file's name or size; not with where they lie."""
    digest = hashlib.sha256()
    for file in files:
        system, path = file_system(file)
        digest.update(f"{os.path.basename(file)}\0{system.info(path).get('size')}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def check_enough_stream_files(files: list[str], num_loaders: int, source: str) -> None:
    """Raises UsageError where some loader would have no file of its own."""
    if len(files) < num_loaders:
        raise UsageError(
            f"{source} has {pluralize(len(files), 'file')} for {num_loaders} loaders (processes x --dataloader_num_workers), "
            "each of which reads files of its own: use fewer, or smaller shards."
        )


def load_first_images(files: list[str], count: int) -> Dataset:
    """Some images to look at while training."""
    rows = list(islice(_iter_named_images(_open_rows(files[:1])), count))
    columns = {"image": [image for _, image in rows], "file_name": [name for name, _ in rows]}
    return Dataset.from_dict(columns).cast_column("image", Image())
