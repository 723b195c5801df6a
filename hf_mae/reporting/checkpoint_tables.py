"""The catalogue of public checkpoints as documents."""

from dataclasses import fields

from ..models.model_zoo import PublicCheckpoint, load_checkpoint_catalogue
from .document import Block, Paragraph
from .table import Column, Table, fields_table


def build_model_zoo() -> list[Block]:
    """Builds the list of public checkpoints."""
    rows = [
        [entry.name, entry.architecture, entry.mask_ratio, f"{entry.megabytes} MB", entry.licence]
        + [f"{entry.layout}; {entry.stage}"]
        for entry in load_checkpoint_catalogue().values()
    ]
    columns = [Column("name"), Column("network"), Column("mask"), Column("size", "r"), Column("licence")]
    note = "mask: mask ratio of the pre-training. Sizes are estimates from the layout. Pass a name as "
    return [Table([*columns, Column("", below=True)], rows), Paragraph(f"{note}--model_name_or_path.")]


def build_checkpoint(entry: PublicCheckpoint) -> list[Block]:
    """Builds the entry of a public checkpoint."""
    values = {item.name: getattr(entry, item.name) for item in fields(entry)}
    values |= {"page": entry.page_url, "converted to": str(entry.converted_path)}
    return [fields_table((name, value) for name, value in values.items() if value)]
