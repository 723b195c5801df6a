"""Documents as plain text for a terminal, at most 80 columns wide. Imports no large library."""

import textwrap
from collections.abc import Sequence

from ...errors import escape_control_characters
from ..document import Block, BulletList, Code, Document, Heading, Image, Paragraph
from ..table import Cell, Column, Number, Table, format_content

MAX_WIDTH = 80  # columns of a terminal
MIN_FIRST_WIDTH = 24  # of the first column, if it is shortened
MIN_TEXT_WIDTH = 30  # of a column of wrapped text
MAX_TITLE_WIDTH = 20  # characters of the title of another column
UNLIMITED = 10**6  # width of text that is not wrapped
BELOW_INDENT = "    "
INTERVAL_NOTE = "[ ]: 95 % interval"


def render(document: Document, wrap: bool = True) -> str:
    """Renders a document as plain text, with control characters escaped (a class name may contain terminal codes).
    Tables with titles stand apart from each other.

    Args:
        wrap: wrap texts at 80 columns; otherwise only tables of numbers are that narrow.
    """
    width = MAX_WIDTH if wrap else UNLIMITED
    lines: list[str] = []
    for index, block in enumerate(document):
        previous = document[index - 1] if index else None
        is_apart = isinstance(block, Table) and block.has_titles and isinstance(previous, Table | Heading)
        if previous is not None and (is_apart or isinstance(block, Heading)):
            lines.append("")
        lines.append(_render_block(block, width))
    return escape_control_characters("\n".join(lines))


def _render_block(block: Block, width: int) -> str:
    match block:
        case Heading():
            return wrap_text(block.text, width=width)
        case Paragraph():
            return wrap_text(f"{block.title} {block.text}".strip(), 2, width)
        case BulletList():
            return "\n".join(wrap_text(f"  {item}", 4, width) for item in block.items)
        case Code():
            return textwrap.indent(block.text.strip(), "  ")
        case Image():
            return block.link
        case Table():
            return _render_table(block, width)


def _render_table(table: Table, width: int) -> str:
    """Renders a table. If it is too wide, its columns are distributed over several tables, which repeat the first
    column; long texts of the first column are shortened."""
    shown = [index for index, column in enumerate(table.columns) if not column.below]
    columns, cells = [table.columns[index] for index in shown], table.cells()
    head = _title_lines(columns) if table.has_titles else []
    rows = [[_cell_text(row[index], table.columns[index]) for index in shown] for row in cells]
    body = _wrap_last_column(rows, head, width) if columns[-1].align == "p" else [[row] for row in rows]
    widths = _measure(columns, [*head, *(line for row in body for line in row)])
    parts = []
    for group in _split_columns([min(w, MIN_TEXT_WIDTH) if c.align == "p" else w for c, w in zip(columns, widths)]):
        lines = [_align_line(line, group, columns, widths) for line in head]
        for row, row_cells in zip(body, cells):
            lines += [_align_line(line, group, columns, widths) for line in row]
            lines += _lines_below(table, row_cells, width)
        parts.append("\n".join(lines))
    caption = [wrap_text(table.caption, width=width), ""] if table.caption else []
    has_intervals = any(isinstance(cell.content, Number) and cell.content.interval for row in cells for cell in row)
    notes = [INTERVAL_NOTE] if has_intervals else []
    notes += [wrap_text(f"({letter}) {note}", 2, width) for letter, note in table.footnotes.items()]
    return "\n".join([*caption, "\n\n".join(parts), *notes])


def _cell_text(cell: Cell, column: Column) -> str:
    """Returns the text of a cell; a line break of a name is escaped, since it would begin another row."""
    text = escape_control_characters(format_content(cell.content, with_reason=False))
    return text if column.align == "p" else text.replace("\n", "\\n")


def _title_lines(columns: Sequence[Column]) -> list[list[str]]:
    """Returns the lines of the titles, aligned at the bottom."""
    titles = [(column.short_title or column.title).split("\n") for column in columns]
    height = max(map(len, titles))
    padded = (
        [""] * (height - len(title)) + [truncate_middle(line, MAX_TITLE_WIDTH) for line in title] for title in titles
    )
    return [list(line) for line in zip(*padded)]


def _measure(columns: Sequence[Column], lines: Sequence[Sequence[str]]) -> list[int]:
    return [max((len(line[index]) for line in lines), default=0) for index in range(len(columns))]


def _wrap_last_column(rows: Sequence[list[str]], head: Sequence[list[str]], width: int) -> list[list[list[str]]]:
    """Wraps the texts of the last column; returns the lines of each row."""
    used = sum(max(len(line[index]) for line in [*head, *rows]) + 2 for index in range(len(rows[0]) - 1))
    wrapped = []
    for *first, text in rows:
        texts = wrap_text(text, width=max(MIN_TEXT_WIDTH, width - used)).split("\n")
        wrapped.append([[*(first if index == 0 else [""] * len(first)), line] for index, line in enumerate(texts)])
    return wrapped


def _lines_below(table: Table, cells: Sequence[Cell], width: int) -> list[str]:
    below = [(column.title, cell) for column, cell in zip(table.columns, cells) if column.below]
    title_width = max((len(title) for title, _ in below), default=0)
    label_width = title_width + 2 if title_width else 0
    return [
        wrap_text(f"{BELOW_INDENT}{title:<{label_width}}{text}", len(BELOW_INDENT) + label_width, width)
        for title, cell in below
        if (text := format_content(cell.content))
    ]


def _split_columns(widths: Sequence[int]) -> list[list[int]]:
    """Distributes the columns over tables that fit; each has the first column."""
    first = min(widths[0], MIN_FIRST_WIDTH)
    groups, used = [[0]], first
    for index, width in enumerate(widths[1:], 1):
        if used + width + 2 > MAX_WIDTH and len(groups[-1]) > 1:
            groups.append([0])
            used = first
        groups[-1].append(index)
        used += width + 2
    return groups


def _align_line(line: Sequence[str], group: Sequence[int], columns: Sequence[Column], widths: Sequence[int]) -> str:
    rest = sum(widths[index] + 2 for index in group[1:] if columns[index].align != "p")
    first = max(min(widths[0], MAX_WIDTH - rest), min(widths[0], MIN_FIRST_WIDTH))
    texts = []
    for index in group:
        text, width = (truncate_middle(line[0], first), first) if index == 0 else (line[index], widths[index])
        texts.append(text.rjust(width) if columns[index].align == "r" else text.ljust(width))
    return "  ".join(texts).rstrip()


def wrap_text(text: str, indent: int = 0, width: int = MAX_WIDTH) -> str:
    """Wraps a text at spaces; an address or a file name is not broken.

    Args:
        indent: spaces before the second line and those that follow.
    """
    return textwrap.fill(text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def truncate_middle(text: str, length: int) -> str:
    """Replaces the middle of a text that is longer than `length` characters."""
    return text if len(text) <= length else f"{text[: length // 2 - 1]}…{text[-length // 2 :]}"
