"""A data set -> tar shards in WebDataset's layout, with an index beside them (`shards` reads both).

The images are the files' own bytes. Where they lie is shuffled, so that whoever reads the shards one after the other
meets no long row of one class; the index keeps the data set's order, so that a training through it draws the same
images as from the folder.
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

from ..compat.datasets import get_fingerprint
from ..errors import UsageError, pluralize
from ..files.atomic import atomic_write_file, write_json, write_text
from ..files.locks import LOCK_FILE
from .archive_index import BATCH_ROWS, CLASS_NAME_FILES, INDEX_FILE, INDEX_SCHEMA, INDEX_VERSION
from .fingerprint import data_fingerprint
from .image_check import check_image_files, check_table_images
from .image_files import IMAGE_SUFFIXES
from .image_io import encoded_bytes, open_image
from .samples import get_image_paths, image_byte_sizes, join_names

logger = logging.getLogger(__name__)

PLAN_FILE, PARTS_DIR = "plan.json", ".parts"  # of shards that are not all written
SUFFIX_BY_FORMAT = {"JPEG": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2", "DIB": ".bmp"}  # of images without a name
ROW_FIELD = pa.field("row", pa.int64())  # in the index to be


@dataclass(frozen=True)
class ShardSummary:
    """Shards that were written.

    Args:
        folder: where they are.
        num_shards: how many.
        images_by_split: in them, by split.
        size: in bytes.
    """

    folder: Path
    num_shards: int
    images_by_split: dict[str, int]
    size: int


@dataclass(frozen=True)
class _Shard:
    """What one file will hold: rows of a split, by their place there."""

    name: str
    split: str
    rows: np.ndarray


def write_shards(
    splits: DatasetDict, folder: Path, shard_size: int, seed: int, num_workers: int | None
) -> ShardSummary:
    """Writes the shards that are not there yet, and then the index.

    Args:
        splits: with `image`, `file_name`, and `labels` and `group` where they are known.
        shard_size: bytes of images in a file, about.
        seed: of the order in which images lie.

    Raises:
        UsageError: the folder holds something else, or shards of other images.
    """
    plan = {"data": data_fingerprint(splits), "shard_size": shard_size, "seed": seed, "version": INDEX_VERSION}
    _start_or_resume(folder, plan)
    shards = [shard for split, dataset in splits.items() for shard in _plan_shards(split, dataset, shard_size, seed)]
    digests = {split: _pixel_digests(dataset, num_workers) for split, dataset in splits.items()}
    starts = dict(zip(splits, np.cumsum([0, *map(len, splits.values())])))
    total = sum(map(len, splits.values()))
    with (
        ThreadPoolExecutor(num_workers or os.cpu_count() or 1) as pool,
        tqdm(total=total, unit="image", delay=1) as bar,
    ):

        def write(shard: _Shard) -> None:
            if not (folder / PARTS_DIR / f"{shard.name}.parquet").is_file():
                _write_shard(shard, splits[shard.split], folder, digests[shard.split], int(starts[shard.split]))
            bar.update(len(shard.rows))

        list(pool.map(write, shards))
    return _write_index(folder, shards, splits, plan)


def _start_or_resume(folder: Path, plan: dict[str, Any]) -> None:
    """A folder that is new, or was begun for the same images."""
    path = folder / PLAN_FILE
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is none, or it is no plan of this program
        before = None
    if before is None and folder.is_dir() and any(file.name != LOCK_FILE for file in folder.iterdir()):
        raise UsageError(f"{folder} exists and is not empty: choose another folder.")
    if before is not None and before != plan:
        raise UsageError(
            f"{folder} was begun for other images, or with another --shard_size or --seed: choose another folder."
        )
    (folder / PARTS_DIR).mkdir(parents=True, exist_ok=True)
    if before is None:
        write_json(path, plan)
    elif there := len(list((folder / PARTS_DIR).glob("*.parquet"))):
        logger.info("%s of %s are there already.", pluralize(there, "shard"), folder)


def _plan_shards(split: str, dataset: Dataset, shard_size: int, seed: int) -> list[_Shard]:
    """Which images go where: in an order that is drawn, as many as make a file."""
    known = image_byte_sizes(dataset)
    sizes = np.asarray(_embedded_image_sizes(dataset) if known is None else known.to_numpy())
    order = np.random.default_rng(seed).permutation(len(sizes))
    numbers = (np.cumsum(sizes[order]) - sizes[order]) // shard_size  # by where an image begins
    parts = [part for part in np.split(order, np.flatnonzero(np.diff(numbers)) + 1) if len(part)]
    return [_Shard(f"{split}-{number:05d}.tar", split, part) for number, part in enumerate(parts)]


def _disable_decoding(dataset: Dataset) -> Dataset:
    return dataset.cast_column("image", Image(decode=False))


def _embedded_image_sizes(dataset: Dataset) -> list[int]:
    """Bytes of images that lie in a table."""
    sizes: list[int] = []
    for batch in dataset.with_format("arrow").select_columns(["image"]).iter(64):
        sizes += pc.binary_length(pc.struct_field(batch.column("image"), "bytes")).to_pylist()
    return sizes


def _pixel_digests(dataset: Dataset, num_workers: int | None) -> list[str]:
    """Of every image's pixels; whoever read the data set has looked already."""
    if files := get_image_paths(dataset):
        return check_image_files(files, num_workers).digests
    return check_table_images(_disable_decoding(dataset)["image"], get_fingerprint(dataset), num_workers).digests


def _write_shard(shard: _Shard, dataset: Dataset, folder: Path, digests: Sequence[str], start: int) -> None:
    """A shard and, when it is whole, what lies where in it."""
    chosen = _disable_decoding(dataset.select(shard.rows))
    names = dataset.features["labels"].names if "labels" in dataset.column_names else None
    rows: list[dict[str, Any]] = []
    with _open_hashing_tar(folder / shard.name) as (tar, hashed):
        for place, image in zip(shard.rows, chosen):
            number = start + int(place)
            told = {"file_name": image["file_name"], "split": shard.split, "group": image.get("group")}
            told["label"] = None if names is None else names[image["labels"]]
            content = encoded_bytes(image["image"])
            offset = _add_member(tar, f"{number:09d}{_image_suffix(image['file_name'], content)}", content)
            if names is not None:
                _add_member(tar, f"{number:09d}.cls", str(image["labels"]).encode())
            about = {name: value for name, value in told.items() if value is not None}
            _add_member(tar, f"{number:09d}.json", json.dumps(about, ensure_ascii=False).encode())
            where = {"shard": shard.name, "offset": offset, "size": len(content), "digest": digests[place] or None}
            rows.append(told | where | {"row": number})
    schema = pa.schema([*INDEX_SCHEMA, ROW_FIELD], {"xxh3_128": hashed.digest.hexdigest()})
    table = pa.Table.from_pylist(rows, schema)
    with atomic_write_file(folder / PARTS_DIR / f"{shard.name}.parquet") as temporary:
        pq.write_table(table, temporary)


class _HashingWriter:
    """A file that is written, and the hash of what it holds."""

    def __init__(self, file: IO[bytes]):
        self.file, self.digest = file, xxhash.xxh3_128()

    def write(self, content: bytes) -> int:
        """As of a file."""
        self.digest.update(content)
        return self.file.write(content)

    def tell(self) -> int:
        """As of a file."""
        return self.file.tell()


@contextmanager
def _open_hashing_tar(path: Path) -> Iterator[tuple[tarfile.TarFile, _HashingWriter]]:
    with atomic_write_file(path) as temporary, open(temporary, "wb") as file:
        hashed = _HashingWriter(file)
        with tarfile.open(fileobj=hashed, mode="w", format=tarfile.USTAR_FORMAT) as tar:  # type: ignore[call-overload]
            yield tar, hashed


def _add_member(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Adds a member, and returns where its bytes lie. The same bytes give the same archive, whoever packs them."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
    return tar.offset - -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _image_suffix(name: str, content: bytes) -> str:
    suffix = Path(name).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return suffix
    with open_image(content) as image:
        kind = str(image.format)
    return SUFFIX_BY_FORMAT.get(kind, f".{kind.lower()}")


def _write_index(folder: Path, shards: list[_Shard], splits: DatasetDict, plan: dict[str, Any]) -> ShardSummary:
    """Writes the index of all shards, and takes away what was needed until then."""
    parts = [pq.read_table(folder / PARTS_DIR / f"{shard.name}.parquet") for shard in shards]
    table = (
        pa.concat_tables([part.replace_schema_metadata(None) for part in parts]).sort_by("row").drop_columns(["row"])
    )
    names = _class_names(splits)
    sizes = {shard.name: os.path.getsize(folder / shard.name) for shard in shards}
    hashes = {shard.name: part.schema.metadata[b"xxh3_128"].decode() for shard, part in zip(shards, parts)}
    about = plan | {"shards": sizes, "xxh3_128": hashes, "classes": names}
    if names is not None:
        write_text(folder / CLASS_NAME_FILES[0], "".join(f"{name}\n" for name in names))
    with atomic_write_file(folder / INDEX_FILE) as temporary:
        rows = table.replace_schema_metadata({"hf_mae": json.dumps(about)})
        pq.write_table(rows, temporary, row_group_size=BATCH_ROWS)
    for shard in shards:
        (folder / PARTS_DIR / f"{shard.name}.parquet").unlink()
    (folder / PARTS_DIR).rmdir()
    (folder / PLAN_FILE).unlink()
    return ShardSummary(folder, len(shards), {split: len(rows) for split, rows in splits.items()}, sum(sizes.values()))


def _class_names(splits: DatasetDict) -> list[str] | None:
    """The classes in the order of their ids; None: there are none."""
    feature = next(iter(splits.values())).features.get("labels")
    return list(feature.names) if feature is not None else None


def _file_hash(path: Path) -> str:
    """xxh3 of a file's bytes."""
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def verify_shards(folder: Path) -> ShardSummary:
    """Reads every shard of a folder again, and compares it with what was written.

    Raises:
        UsageError: there is no index, or a shard is missing or holds other bytes.
    """
    try:
        schema = pq.read_schema(folder / INDEX_FILE)
        about = json.loads((schema.metadata or {})[b"hf_mae"])
        hashes, sizes = about["xxh3_128"], about["shards"]
    except (OSError, ValueError, KeyError, pa.ArrowException):
        raise UsageError(f"{folder} holds no {INDEX_FILE} of `hf-mae shard`, or a damaged one.") from None
    bar = tqdm(hashes.items(), unit="shard", delay=1)
    wrong = [name for name, found in bar if not (folder / name).is_file() or _file_hash(folder / name) != found]
    if wrong:
        raise UsageError(
            f"{pluralize(len(wrong), 'shard')} of {folder} {'is' if len(wrong) == 1 else 'are'} missing or damaged: "
            f"{join_names(wrong)}. Copy them again, or make the shards again."
        )
    splits = pq.read_table(folder / INDEX_FILE, columns=["split"]).column("split").value_counts().to_pylist()
    return ShardSummary(folder, len(sizes), {row["values"]: row["counts"] for row in splits}, sum(sizes.values()))
