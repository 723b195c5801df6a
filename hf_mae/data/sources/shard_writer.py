"""Writer of tar shards in WebDataset's layout, with an index (`archive` reads both).

The shards contain the original bytes of the image files. The images are shuffled, so that sequential reading does not
give long runs of one class. The index keeps the order of the dataset, so that training with the index draws the same
images as training from the folder.
"""

import io
import json
import logging
import os
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from datasets import Dataset, DatasetDict, Image
from tqdm.auto import tqdm

from ...compat.datasets import get_fingerprint
from ...errors import UsageError
from ...files.atomic import atomic_write_file, write_json, write_text
from ...files.locks import LOCK_FILE
from ...settings.limits import count_usable_cores
from ..columns import get_image_paths, image_byte_sizes
from ..fingerprint import data_fingerprint
from ..images.decoding import HEAD_SIZE, detect_format
from ..images.image_check import check_image_files, check_table_images
from ..images.image_io import encoded_bytes
from ..images.messages import ImageMessage
from .archive import BATCH_ROWS, CLASS_NAME_FILES, INDEX_FILE, INDEX_SCHEMA, INDEX_VERSION
from .image_files import IMAGE_SUFFIXES
from .samples import join_names

logger = logging.getLogger(__name__)

PLAN_FILE, PARTS_DIR = "plan.json", ".parts"  # exist until all shards are written; PARTS_DIR has one index per shard
SUFFIX_BY_FORMAT = {  # of images without a file name, or with another one
    **{"JPEG": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2", "DICOM": ".dcm", "HEIF": ".heic", "METAIMAGE": ".mha"},
}
ROW_FIELD = pa.field("row", pa.int64())  # row of the dataset; column of the indexes in PARTS_DIR


@dataclass(frozen=True)
class ShardSummary:
    """A set of complete shards.

    Args:
        folder: folder of the shards.
        num_shards: number of shards.
        images_by_split: number of images of each split.
        size: in bytes.
    """

    folder: Path
    num_shards: int
    images_by_split: dict[str, int]
    size: int


@dataclass(frozen=True)
class _Shard:
    """The planned contents of one shard: row numbers of a split."""

    name: str
    split: str
    rows: np.ndarray


def write_shards(
    splits: DatasetDict, folder: Path, shard_size: int, seed: int, num_workers: int | None
) -> ShardSummary:
    """Writes the missing shards, and then the index.

    Args:
        splits: with `image`, `file_name`, and optionally `labels` and `group`.
        folder: the output folder.
        shard_size: approximate size in bytes of the images of a shard.
        seed: of the order of the images.
        num_workers: number of threads.

    Raises:
        UsageError: If the folder contains other files, or shards of other images.
    """
    plan = {"data": data_fingerprint(splits), "shard_size": shard_size, "seed": seed, "version": INDEX_VERSION}
    _start_or_resume(folder, plan)
    shards = [shard for split, dataset in splits.items() for shard in _plan_shards(split, dataset, shard_size, seed)]
    digests = {split: _pixel_digests(dataset, num_workers) for split, dataset in splits.items()}
    starts = dict(zip(splits, np.cumsum([0, *map(len, splits.values())])))
    total = sum(map(len, splits.values()))
    with (
        ThreadPoolExecutor(num_workers or count_usable_cores()) as pool,
        tqdm(total=total, unit="image", delay=1) as bar,
    ):

        def write(shard: _Shard) -> None:
            if not (folder / PARTS_DIR / f"{shard.name}.parquet").is_file():
                _write_shard(shard, splits[shard.split], folder, digests[shard.split], int(starts[shard.split]))
            bar.update(len(shard.rows))

        list(pool.map(write, shards))
    return _write_index(folder, shards, splits, plan)


def _start_or_resume(folder: Path, plan: dict[str, Any]) -> None:
    """Creates the output folder with the plan, or checks that an existing folder has the same plan."""
    path = folder / PLAN_FILE
    try:
        existing_plan = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # missing, or not written by this program
        existing_plan = None
    if (
        existing_plan is None
        and folder.is_dir()
        and any(not file.name.startswith(LOCK_FILE) for file in folder.iterdir())
    ):
        raise UsageError(ImageMessage.SHARD_FOLDER_NOT_EMPTY, folder=folder)
    if existing_plan is not None and existing_plan != plan:
        raise UsageError(ImageMessage.SHARD_FOLDER_DIFFERS, folder=folder)
    (folder / PARTS_DIR).mkdir(parents=True, exist_ok=True)
    if existing_plan is None:
        write_json(path, plan)
    elif num_written := len(list((folder / PARTS_DIR).glob("*.parquet"))):
        logger.info("Resuming in %s: shards already written: %d.", folder, num_written)


def _plan_shards(split: str, dataset: Dataset, shard_size: int, seed: int) -> list[_Shard]:
    """Distributes the images of a split, in random order, among shards of about equal size."""
    stored_sizes = image_byte_sizes(dataset)
    sizes = np.asarray(_embedded_image_sizes(dataset) if stored_sizes is None else stored_sizes.to_numpy())
    order = np.random.default_rng(seed).permutation(len(sizes))
    shard_ids = (np.cumsum(sizes[order]) - sizes[order]) // shard_size  # determined by the start of an image
    row_groups = [rows for rows in np.split(order, np.flatnonzero(np.diff(shard_ids)) + 1) if len(rows)]
    return [_Shard(f"{split}-{number:05d}.tar", split, rows) for number, rows in enumerate(row_groups)]


def _disable_decoding(dataset: Dataset) -> Dataset:
    return dataset.cast_column("image", Image(decode=False))


def _embedded_image_sizes(dataset: Dataset) -> list[int]:
    """Returns the sizes in bytes of images that are stored in a table."""
    sizes: list[int] = []
    for batch in dataset.with_format("arrow").select_columns(["image"]).iter(64):
        sizes += pc.binary_length(pc.struct_field(batch.column("image"), "bytes")).to_pylist()
    return sizes


def _pixel_digests(dataset: Dataset, num_workers: int | None) -> list[str]:
    """Returns digests of the pixels of all images; usually cached, since loading the dataset computes them."""
    if files := get_image_paths(dataset):
        return check_image_files(files, num_workers).digests
    return check_table_images(_disable_decoding(dataset)["image"], get_fingerprint(dataset), num_workers).digests


def _write_shard(shard: _Shard, dataset: Dataset, folder: Path, digests: Sequence[str], start: int) -> None:
    """Writes a shard and, after it is complete, its index."""
    images = _disable_decoding(dataset.select(shard.rows))
    names = dataset.features["labels"].names if "labels" in dataset.column_names else None
    rows: list[dict[str, Any]] = []
    with _open_hashing_tar(folder / shard.name) as (tar, writer):
        for row, image in zip(shard.rows, images):
            number = start + int(row)
            metadata = {"file_name": image["file_name"], "split": shard.split, "group": image.get("group")}
            metadata["label"] = None if names is None else names[image["labels"]]
            content = encoded_bytes(image["image"])
            offset = _add_member(tar, f"{number:09d}{_image_suffix(image['file_name'], content)}", content)
            if names is not None:
                _add_member(tar, f"{number:09d}.cls", str(image["labels"]).encode())
            sidecar = {name: value for name, value in metadata.items() if value is not None}
            _add_member(tar, f"{number:09d}.json", json.dumps(sidecar, ensure_ascii=False).encode())
            location = {"shard": shard.name, "offset": offset, "size": len(content), "digest": digests[row] or None}
            rows.append(metadata | location | {"row": number})
    schema = pa.schema([*INDEX_SCHEMA, ROW_FIELD], {"xxh3_128": writer.digest.hexdigest()})
    table = pa.Table.from_pylist(rows, schema)
    with atomic_write_file(folder / PARTS_DIR / f"{shard.name}.parquet") as temporary:
        pq.write_table(table, temporary)


class _HashingWriter:
    """A file object that hashes its contents while they are written."""

    def __init__(self, file: IO[bytes]):
        self.file, self.digest = file, xxhash.xxh3_128()

    def write(self, content: bytes) -> int:
        """Writes and hashes bytes."""
        self.digest.update(content)
        return self.file.write(content)

    def tell(self) -> int:
        """Returns the current position."""
        return self.file.tell()


@contextmanager
def _open_hashing_tar(path: Path) -> Iterator[tuple[tarfile.TarFile, _HashingWriter]]:
    with atomic_write_file(path) as temporary, open(temporary, "wb") as file:
        writer = _HashingWriter(file)
        with tarfile.open(fileobj=writer, mode="w", format=tarfile.USTAR_FORMAT) as tar:  # type: ignore[call-overload]
            yield tar, writer


def _add_member(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Adds a member and returns the offset of its bytes. Owner and time are not stored: archives are reproducible."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
    return tar.offset - -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _image_suffix(name: str, content: bytes) -> str:
    suffix = Path(name).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return suffix
    image_format = detect_format(content[:HEAD_SIZE]) or "bin"
    return SUFFIX_BY_FORMAT.get(image_format, f".{image_format.lower()}")


def _write_index(folder: Path, shards: list[_Shard], splits: DatasetDict, plan: dict[str, Any]) -> ShardSummary:
    """Merges the indexes of all shards, and removes the temporary files."""
    tables = [pq.read_table(folder / PARTS_DIR / f"{shard.name}.parquet") for shard in shards]
    merged = pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
    merged = merged.sort_by("row").drop_columns(["row"])
    names = _class_names(splits)
    sizes = {shard.name: os.path.getsize(folder / shard.name) for shard in shards}
    hashes = {shard.name: table.schema.metadata[b"xxh3_128"].decode() for shard, table in zip(shards, tables)}
    metadata = plan | {"shards": sizes, "xxh3_128": hashes, "classes": names}
    if names is not None:
        write_text(folder / CLASS_NAME_FILES[0], "".join(f"{name}\n" for name in names))
    with atomic_write_file(folder / INDEX_FILE) as temporary:
        merged = merged.replace_schema_metadata({"hf_mae": json.dumps(metadata)})
        pq.write_table(merged, temporary, row_group_size=BATCH_ROWS)
    for shard in shards:
        (folder / PARTS_DIR / f"{shard.name}.parquet").unlink()
    (folder / PARTS_DIR).rmdir()
    (folder / PLAN_FILE).unlink()
    return ShardSummary(folder, len(shards), {split: len(rows) for split, rows in splits.items()}, sum(sizes.values()))


def _class_names(splits: DatasetDict) -> list[str] | None:
    """Returns the class names in the order of their ids; None for unlabelled images."""
    feature = next(iter(splits.values())).features.get("labels")
    return list(feature.names) if feature is not None else None


def _file_hash(path: Path) -> str:
    """Computes the xxh3 hash of a file."""
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def verify_shards(folder: Path) -> ShardSummary:
    """Compares the hash of every shard of a folder with the index.

    Raises:
        UsageError: If the index is missing or invalid, or a shard is missing or damaged.
    """
    try:
        schema = pq.read_schema(folder / INDEX_FILE)
        metadata = json.loads((schema.metadata or {})[b"hf_mae"])
        hashes, sizes = metadata["xxh3_128"], metadata["shards"]
    except (OSError, ValueError, KeyError, pa.ArrowException):
        raise UsageError(ImageMessage.INVALID_SHARD_INDEX, folder=folder, file=INDEX_FILE) from None
    bar = tqdm(hashes.items(), unit="shard", delay=1)
    damaged = [name for name, expected in bar if not (folder / name).is_file() or _file_hash(folder / name) != expected]
    if damaged:
        raise UsageError(ImageMessage.DAMAGED_SHARDS, count=len(damaged), folder=folder, names=join_names(damaged))
    splits = pq.read_table(folder / INDEX_FILE, columns=["split"]).column("split").value_counts().to_pylist()
    return ShardSummary(folder, len(sizes), {row["values"]: row["counts"] for row in splits}, sum(sizes.values()))
