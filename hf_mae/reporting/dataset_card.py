"""Cards of data sets on the Hub."""

from typing import Any

import yaml
from datasets import DatasetDict

from .console import class_table
from .document import Block, Heading, Paragraph
from .renderers import markdown


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
