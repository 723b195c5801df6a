"""Records in notebooks, as HTML."""

from ..runs.record import RunRecord, html_renderers
from ..runs.record_io import read_record
from .console import build_probe_summary
from .document import Block, Paragraph
from .headline import split_table
from .renderers import html
from .run_sentences import describe_selection

__all__ = ["RunRecord", "read_record", "render_record"]


def render_record(record: RunRecord) -> str:
    """Renders the scores by split and the selection of the weights."""
    selection = describe_selection(record.selection)
    caption = Paragraph(f"{record.kind} of {record.base} on {record.data.name}. {selection}".strip())
    blocks: list[Block] = build_probe_summary(record) if record.probe else []
    if record.scores:
        blocks.append(split_table(record.scores))
    return html.render([*blocks, caption])


html_renderers.append(render_record)
