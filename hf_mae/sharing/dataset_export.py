"""Export of a labelled dataset as parquet, with splits, classes and patients, for the Hub and `datasets`."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset, DatasetDict, Features, Image
from tqdm.auto import tqdm

from ..data.images.image_io import encoded_bytes
from ..data.sources.samples import join_names
from ..errors import UsageError
from ..files.archive_members import parse_member
from ..files.atomic import atomic_write_dir, write_text
from ..reporting.console import class_table
from ..reporting.document import Block, Heading, Paragraph
from ..reporting.renderers import markdown
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
    for shard in _iter_shards(tqdm(rows, desc=f"Writing {split}", unit="image", delay=1)):
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


def render_dataset_card(splits: DatasetDict, name: str, metadata: dict[str, Any]) -> str:
    """Renders the dataset card: the files of the splits, and the number of images of each class."""
    head = {key: value for key, value in metadata.items() if key != "description" and value}
    head |= {
        "pretty_name": name,
        "task_categories": ["image-classification"],
        "size_categories": [_size_category(sum(map(len, splits.values())))],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits],
            }
        ],
    }
    document: list[Block] = [
        Heading(name, 1),
        *([Paragraph(metadata["description"])] if metadata.get("description") else []),
        class_table(splits),
        *map(Paragraph, _describe_groups(splits)),
        Paragraph("Created by `hf-mae push-dataset`. To train on it: `hf-mae finetune CHECKPOINT USER/NAME`."),
    ]
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n\n{markdown.render(document)}"


def _describe_groups(splits: DatasetDict) -> list[str]:
    groups = {split: set(dataset["group"][:]) for split, dataset in splits.items() if "group" in dataset.column_names}
    if not groups:
        return []
    counts = ", ".join(f"{split} {len(names)}" for split, names in groups.items())
    seen: set[str] = set()
    shared: set[str] = set()
    for names in groups.values():
        shared |= seen & names
        seen |= names
    overlap = f"{len(shared)} in more than one split" if shared else "none in more than one split"
    return [f"`group` is the patient or video of an image. Groups: {counts}; {overlap}."]


def _size_category(num_images: int) -> str:
    """Returns the size category of the Hub for a number of rows."""
    bounds = [(1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((category for limit, category in bounds if num_images < limit), "1M<n<10M")
