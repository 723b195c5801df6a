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

from ..compat.datasets import features_of, let_s3_stream
from ..errors import UsageError, counted, first_line
from ..files.members import file_system, is_remote
from .draws import seeded_draws
from .excluded import stem_of
from .opening import read_rgb, reason_of
from .shards import INDEX
from .transforms import TrainingTransform

logger = logging.getLogger(__name__)

BUILDERS = {".tar": "webdataset", ".parquet": "parquet"}
WINDOW = 256  # rows that are drawn from at a time
IMAGE = "image"  # the column
BEGINNING = {"epoch": 0, "source": None, "window": 0, "row": 0, "given": 0}  # of an epoch
Row = tuple[str, dict[str, Any]]  # a name, and an undecoded image


def find_files(source: str) -> tuple[list[str], int | None]:
    """The files of a stream, sorted, and how many images they hold, where that is known without reading them.

    Args:
        source: a folder or URL of tar or parquet files, one of them, a pattern, or a Hub id.

    Raises:
        UsageError: it cannot be reached, or holds no such file.
    """
    try:
        found = _hub_files(source) if _is_hub_id(source) else _stored_files(source)
    except Exception as error:  # fsspec, datasets and huggingface_hub raise many kinds
        raise UsageError(f"{source} cannot be reached ({first_line(error)}).") from None
    if not found[0]:
        raise UsageError(f"{source} holds no {' or '.join(BUILDERS)} files to stream; hf-mae shard makes them.")
    return found


def _is_hub_id(source: str) -> bool:
    return not (is_remote(source) or os.path.exists(source) or "*" in source)


def _hub_files(source: str) -> tuple[list[str], int | None]:
    builder = load_dataset_builder(source)
    split = "train" if "train" in builder.config.data_files else next(iter(builder.config.data_files))
    files = [str(file) for file in builder.config.data_files[split] if _kind(str(file))]
    known = (builder.info.splits or {}).get(split)
    return sorted(files), known.num_examples if known else None


def _stored_files(source: str) -> tuple[list[str], int | None]:
    system, path = file_system(source if is_remote(source) else os.path.abspath(source))
    found = system.glob(path) if "*" in path else [path] if system.isfile(path) else system.find(path)
    whole = [str(system.unstrip_protocol(name)) if is_remote(source) else name for name in found]
    index = next((name for name in found if os.path.basename(name) == INDEX), None)
    files = sorted(name for name in whole if _kind(name) and os.path.basename(name) != INDEX)
    if index is None:
        return files, None
    with system.open(index, "rb") as file:
        return files, pq.read_metadata(file).num_rows


def _kind(name: str) -> str | None:
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
        left_out: stems of names that are passed over (`excluded.stem_of`).
    """

    def __init__(
        self,
        files: list[str],
        transform: TrainingTransform,
        seed: int = 0,
        process: int = 0,
        processes: int = 1,
        on_bad_image: str = "error",
        left_out: frozenset[str] = frozenset(),
    ):
        self.left_out = left_out
        self.files, self.transform, self.seed = files, transform, seed
        self.process, self.processes, self.on_bad_image = process, processes, on_bad_image
        self._at: dict[str, Any] = dict(BEGINNING)

    def state_dict(self) -> dict[str, Any]:
        """Where this loader is."""
        return dict(self._at)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self._at = dict(state)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            epoch = self._at["epoch"]
            for name, image in self._rows(epoch):
                if (item := self._item(name, image, epoch)) is not None:
                    self._at["given"] += 1
                    yield item
            if not self._at["given"]:
                raise UsageError(f"{self.files[0]} and the others: not one image can be read.")
            self._at = BEGINNING | {"epoch": epoch + 1}

    def _rows(self, epoch: int) -> Iterator[Row]:
        """The rows of an epoch from where this loader is, window by window."""
        rows = self._source(epoch)
        if self._at["source"] is not None:
            rows.load_state_dict(self._at["source"])
        worker = torch.utils.data.get_worker_info()
        iterator, loader = _read(rows), [self.process, worker.id if worker else 0]
        while window := list(islice(iterator, WINDOW)):
            after = rows.state_dict()
            drawn = np.random.default_rng([self.seed, epoch, *loader, self._at["window"]])
            for place in drawn.permutation(len(window))[self._at["row"] :]:
                self._at["row"] += 1
                yield window[place]
            self._at |= {"source": after, "window": self._at["window"] + 1, "row": 0}

    def _source(self, epoch: int) -> Any:
        """The files in an order of this epoch; `datasets` shares them among processes, and among workers."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.files))
        rows = _opened([self.files[place] for place in order])
        return split_dataset_by_node(rows, self.process, self.processes) if self.processes > 1 else rows

    def _item(self, name: str, encoded: dict[str, Any], epoch: int) -> dict[str, Any] | None:
        if stem_of(name) in self.left_out:
            return None
        try:
            image = read_rgb(encoded)
        except Exception as error:  # PIL raises whatever the format's plugin does
            reason = reason_of(error)
            if self.on_bad_image == "error":
                raise UsageError(f"{name} cannot be read ({reason}): mend it, or pass --on_bad_image skip.") from None
            logger.warning("%s cannot be read (%s): the next one takes its place.", name, reason)
            return None
        with seeded_draws(self.seed, epoch, zlib.crc32(name.encode())):
            resized = image if self.transform.resize is None else self.transform.resize(image)
            return {"pixel_values": self.transform.augment(resized)}


def _opened(files: list[str]) -> Any:
    """Rows of files, whose images are not decoded."""
    if files[0].startswith(("s3://", "s3a://")):
        let_s3_stream()
    try:
        rows = load_dataset(_kind(files[0]), data_files=files, split="train", streaming=True)
        features = features_of(rows)
    except Exception as error:  # as of `find_files`
        raise UsageError(f"{files[0]} cannot be read ({first_line(error)}).") from None
    column = next((name for name, feature in features.items() if isinstance(feature, Image)), None)
    if column is None:
        raise UsageError(f"{files[0]} has no column of images; it has {', '.join(features)}.")
    rows = rows.cast_column(column, Image(decode=False))
    return rows if column == IMAGE else rows.rename_column(column, IMAGE)


def _read(rows: Any) -> Iterator[Row]:
    try:
        for number, row in enumerate(rows):
            told = row.get("json") if isinstance(row.get("json"), dict) else row
            image = row[IMAGE]
            name = told.get("file_name") or image.get("path") or row.get("__key__") or f"image {number}"
            yield str(name), image
    except Exception as error:  # as of `find_files`
        raise UsageError(f"A file of the stream cannot be read ({first_line(error)}).") from None


def stream_fingerprint(files: list[str]) -> str:
    """Changes with any file's name or size; not with where they lie."""
    digest = hashlib.sha256()
    for file in files:
        system, path = file_system(file)
        digest.update(f"{os.path.basename(file)}\0{system.info(path).get('size')}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def refuse_too_few_files(files: list[str], loaders: int, source: str) -> None:
    """Raises UsageError where some loader would have no file of its own."""
    if len(files) < loaders:
        raise UsageError(
            f"{source} has {counted(len(files), 'file')} for {loaders} loaders (processes x --dataloader_num_workers), "
            "each of which reads files of its own: use fewer, or smaller shards."
        )


def first_images(files: list[str], count: int) -> Dataset:
    """Some images to look at while training."""
    rows = list(islice(_read(_opened(files[:1])), count))
    columns = {"image": [image for _, image in rows], "file_name": [name for name, _ in rows]}
    return Dataset.from_dict(columns).cast_column("image", Image())
