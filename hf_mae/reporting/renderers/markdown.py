"""Documents as Markdown, also for the Hub."""

import re

from ..document import Block, BulletList, Code, Document, Heading, Image, Paragraph
from ..table import Cell, Table, format_content

# Characters that start emphasis, code, links, math, tags, entities or cells.
SPECIAL = re.compile(
    r"\\(?=[!-/:-@\[-`{-~]|$)|[|`*$~]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])|!(?=\[)|&(?=#?\w+;)|#(?=#*$)"
)


def escape_cell(text: str) -> str:
    """Escapes text for a cell of a table or a heading: one line, which a reader of Markdown shows as it is."""
    return SPECIAL.sub(r"\\\g<0>", " ".join(text.split())).replace("<", "&lt;")


def render(document: Document) -> str:
    """Renders a document as Markdown."""
    return "\n\n".join(filter(None, map(_render_block, document))) + "\n"


def _render_block(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {escape_cell(block.text)}"
        case Paragraph():
            return (f"**{block.title}** " if block.title else "") + block.text.replace("<", "&lt;")
        case BulletList():
            return "\n".join(f"- {_join_lines(item)}" for item in block.items)
        case Code():
            fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", block.text))])
            return f"{fence}{block.language}\n{block.text.strip()}\n{fence}"
        case Image():
            return f"![{escape_cell(block.title)}]({block.link})"
        case Table():
            return _render_table(block)


def _join_lines(text: str) -> str:
    """Returns a sentence, which may contain Markdown, on one line without HTML."""
    return " ".join(text.split()).replace("<", "&lt;")


def _render_table(table: Table) -> str:
    lines = [table.caption.replace("<", "&lt;"), ""] if table.caption else []
    lines.append("| " + " | ".join(escape_cell(column.title) for column in table.columns) + " |")
    lines.append("|" + "|".join("---:" if column.align == "r" else "---" for column in table.columns) + "|")
    lines += ["| " + " | ".join(map(_render_cell, row)) + " |" for row in table.cells()]
    notes = [f"- ({letter}) {_join_lines(note)}" for letter, note in table.footnotes.items()]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _render_cell(cell: Cell) -> str:
    text = escape_cell(format_content(cell.content))
    if cell.bold and text:
        text = f"**{text}**"
    return f"{text} ({cell.footnote_marks})" if cell.footnote_marks else text
