"""Export of a labelled dataset as parquet, with splits, classes and patients, for the Hub and `datasets`."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Features, Image
from tqdm.auto import tqdm

from ..data.images.image_io import encoded_bytes
from ..data.sources.samples import join_names
from ..errors import UsageError, escape_control_characters
from ..files.archive_members import parse_member
from ..files.atomic import atomic_write_dir, write_text
from ..reporting.dataset_card import render_dataset_card
from .messages import SharingMessage

SHARD_BYTES = 300_000_000  # approximate bytes of images per file; a file is built in memory
UNSUPPORTED_SUFFIXES = (".dcm", ".dicom", ".heic", ".heif")  # `datasets` decodes with Pillow only


def write_parquet_dataset(
    splits: DatasetDict, folder: Path, name: str, metadata: dict[str, Any], overwrite: bool
) -> list[Path]:
    """Writes `data/SPLIT-00000-of-00001.parquet` and a dataset card. The images are stored as in their files.

    Columns: `image`, `label` (a ClassLabel), `file_name`, and other columns of the dataset (`group`: the patient).

    Args:
        splits: result of `read_splits`.
        metadata: for the head of the card (`license`), and `description`, a sentence for its text.

    Returns:
        The files, relative to the folder.

    Raises:
        UsageError: If `datasets` cannot decode some images, or the folder cannot be written.
    """
    _check_decodable(splits)
    with atomic_write_dir(folder, overwrite) as temporary:
        (temporary / "data").mkdir()
        for split, dataset in splits.items():
            _write_split(split, dataset, temporary / "data")
        write_text(temporary / "README.md", render_dataset_card(splits, name, metadata))
    return sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())


def _check_decodable(splits: DatasetDict) -> None:
    names = [name for dataset in splits.values() for name in dataset["file_name"][:]]
    if unsupported := [name for name in names if name.lower().endswith(UNSUPPORTED_SUFFIXES)]:
        raise UsageError(SharingMessage.IMAGES_NOT_DECODABLE, names=join_names(unsupported), count=len(unsupported))


def _write_split(split: str, dataset: Dataset, folder: Path) -> None:
    """Writes a split as files of about `SHARD_BYTES`. At the end, renames them to include the total."""
    rows = dataset.cast_column("image", Image(decode=False))
    names = [name for name in rows.column_names if name not in ("image", "labels")]
    features = Features({"image": Image(), "label": rows.features["labels"]} | {n: rows.features[n] for n in names})
    files: list[Path] = []
    for shard in _iter_shards(tqdm(rows, desc=escape_control_characters(f"Writing {split}"), unit="image", delay=1)):
        columns = {name: [row[name] for row in shard] for name in names}
        columns |= {"image": [row["image"] for row in shard], "label": [row["labels"] for row in shard]}
        files.append(folder / f"{split}-{len(files):05d}.parquet")
        Dataset.from_dict({name: columns[name] for name in features}, features=features).to_parquet(files[-1])
    for index, file in enumerate(files):
        file.rename(folder / f"{split}-{index:05d}-of-{len(files):05d}.parquet")


def _iter_shards(rows: Any) -> Iterator[list[dict[str, Any]]]:
    """Yields the rows of each file, with the bytes of their images."""
    shard: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        image = row["image"]
        content = encoded_bytes(image)
        path = os.path.basename(
            row["file_name"] if image["path"] is None or parse_member(image["path"]) else image["path"]
        )
        if shard and size + len(content) > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append(row | {"image": {"bytes": content, "path": path}})
        size += len(content)
    yield shard
