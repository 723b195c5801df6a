"""Documents as HTML, for notebooks."""

from html import escape

from ..document import Block, BulletList, Code, Document, Heading, Image, Paragraph
from ..table import Cell, Table, format_content


def render(document: Document) -> str:
    """Renders a document as HTML."""
    return "\n".join(map(_render_block, document))


def _render_block(block: Block) -> str:
    match block:
        case Heading():
            return f"<h{block.level}>{escape(block.text)}</h{block.level}>"
        case Paragraph():
            return "<p>" + (f"<b>{escape(block.title)}</b> " if block.title else "") + f"{escape(block.text)}</p>"
        case BulletList():
            return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in block.items) + "</ul>"
        case Code():
            return f"<pre>{escape(block.text.strip())}</pre>"
        case Image():
            return f'<img src="{escape(block.link)}" alt="{escape(block.title)}">'
        case Table():
            return _render_table(block)


def _render_table(table: Table) -> str:
    head = "".join(f"<th>{escape(column.title)}</th>" for column in table.columns)
    rows = ["<tr>" + "".join(f"<td>{_render_cell(cell)}</td>" for cell in row) + "</tr>" for row in table.cells()]
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    notes = [f"<p><sup>{letter}</sup> {escape(note)}</p>" for letter, note in table.footnotes.items()]
    return "\n".join(
        [f"<table>{caption}", *([f"<tr>{head}</tr>"] if table.has_titles else []), *rows, "</table>", *notes]
    )


def _render_cell(cell: Cell) -> str:
    text = escape(format_content(cell.content))
    text = f"<b>{text}</b>" if cell.bold else text
    return text + (f"<sup>{cell.footnote_marks}</sup>" if cell.footnote_marks else "")
