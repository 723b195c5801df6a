"""The document of a sample size."""

from typing import Any

from .document import Block, Paragraph
from .table import Column, Table, number_columns
from .text_templates import load_templates, render_text


def build_sample_size(plan: Any) -> list[Block]:
    """Builds the required size with its assumptions, and the table of sizes by half-width."""
    text = load_templates("sample_size")
    facts = {"plan": plan, "options": plan.settings}
    blocks: list[Block] = [Paragraph(render_text(text[name], facts)) for name in ("required", "assumptions")]
    with_patients = plan.settings.images_per_patient > 1
    rows = [
        [
            f"{size.half_width:.3g}",
            f"[{size.interval[0]:.3f}, {size.interval[1]:.3f}]",
            size.images,
            *([size.patients] if with_patients else []),
        ]
        for size in plan.sizes
    ]
    titles = ["interval", "images", *(["patients"] if with_patients else [])]
    return [*blocks, *([Table([Column("half-width", "r"), *number_columns(titles)], rows)] if rows else [])]
