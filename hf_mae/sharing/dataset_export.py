"""Export of a labelled dataset as parquet, with splits, classes and patients, for the Hub and `datasets`."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Features, Image
from tqdm.auto import tqdm

from ..data.images.decoding import DICOM, HEAD_SIZE, HEIF, META_IMAGE, detect_format
from ..data.images.image_io import encoded_bytes
from ..errors import escape_control_characters, inform
from ..files.atomic import atomic_write_dir, write_text
from ..reporting.dataset_card import render_dataset_card
from ..runs.identifiers import Pseudonyms
from .image_metadata import list_metadata, remove_metadata, to_png
from .messages import SharingMessage

logger = logging.getLogger(__name__)
SHARD_BYTES = 300_000_000  # approximate bytes of images per file; a file is built in memory
PUBLISHED_COLUMNS = ("file_name", "group")  # and the image and its label
UNSUPPORTED_FORMATS = (DICOM, HEIF, META_IMAGE)  # `datasets` decodes with Pillow only


def write_parquet_dataset(
    splits: DatasetDict,
    folder: Path,
    name: str,
    metadata: dict[str, Any],
    overwrite: bool,
    pseudonyms: Pseudonyms | None,
) -> list[Path]:
    """Writes `data/SPLIT-00000-of-00001.parquet` and a dataset card.

    Columns: `image`, `label` (a ClassLabel), `file_name` and `group` (the patient).

    Args:
        splits: result of `read_splits`.
        metadata: for the head of the card (`license`), and `description`, a sentence for its text.
        pseudonyms: codes of patients and file names; the images are stored without metadata. None: names and images
            are stored as they are.

    Returns:
        The files, relative to the folder.

    Raises:
        UsageError: If the folder cannot be written.
    """
    tags: Counter[str] = Counter()
    with atomic_write_dir(folder, overwrite) as temporary:
        (temporary / "data").mkdir()
        for split, dataset in splits.items():
            _write_split(split, dataset, temporary / "data", pseudonyms, tags)
        write_text(temporary / "README.md", render_dataset_card(splits, name, metadata))
    if tags:
        inform(logger, SharingMessage.METADATA_REMOVED, found=[f"{tag} ({count})" for tag, count in tags.most_common()])
    return sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())


def _write_split(split: str, dataset: Dataset, folder: Path, pseudonyms: Pseudonyms | None, tags: Counter[str]) -> None:
    """Writes a split as files of about `SHARD_BYTES`. At the end, renames them to include the total."""
    rows = dataset.cast_column("image", Image(decode=False))
    names = [name for name in PUBLISHED_COLUMNS if name in rows.column_names]
    features = Features({"image": Image(), "label": rows.features["labels"]} | {n: rows.features[n] for n in names})
    files: list[Path] = []
    progress = tqdm(rows, desc=escape_control_characters(f"Writing {split}"), unit="image", delay=1)
    for shard in _iter_shards(progress, pseudonyms, tags):
        columns = {name: [row[name] for row in shard] for name in names}
        columns |= {"image": [row["image"] for row in shard], "label": [row["labels"] for row in shard]}
        files.append(folder / f"{split}-{len(files):05d}.parquet")
        Dataset.from_dict({name: columns[name] for name in features}, features=features).to_parquet(files[-1])
    for index, file in enumerate(files):
        file.rename(folder / f"{split}-{index:05d}-of-{len(files):05d}.parquet")


def _iter_shards(rows: Any, pseudonyms: Pseudonyms | None, tags: Counter[str]) -> Iterator[list[dict[str, Any]]]:
    """Yields the rows of each file, with the bytes of their images; `tags` counts the metadata that is removed."""
    shard: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        content = encoded_bytes(row["image"])
        if pseudonyms is not None:
            tags.update(list_metadata(content))
            content, row = remove_metadata(content), _replace_names(row, pseudonyms)
        elif detect_format(content[:HEAD_SIZE]) in UNSUPPORTED_FORMATS:
            content = to_png(content)
        if shard and size + len(content) > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append(row | {"image": {"bytes": content, "path": os.path.basename(row["file_name"])}})
        size += len(content)
    yield shard


def _replace_names(row: dict[str, Any], pseudonyms: Pseudonyms) -> dict[str, Any]:
    row = row | {"file_name": pseudonyms.file_name(row["file_name"])}
    return row | ({"group": pseudonyms.code(row["group"])} if row.get("group") is not None else {})
