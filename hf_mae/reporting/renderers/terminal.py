"""Documents as plain text for a terminal, at most 80 columns wide. Imports no large library."""

import textwrap
from collections.abc import Iterable, Sequence

from ..document import Block, BulletList, Code, Document, Heading, Image, Paragraph
from ..table import Number, Table, format_content

MAX_WIDTH = 80  # columns of a terminal
MIN_FIRST_WIDTH = 24  # of the first column, if it is shortened
MAX_TITLE_WIDTH = 20  # characters of the title of another column
INTERVAL_NOTE = "[ ]: 95 % interval"


def render(document: Document) -> str:
    """Renders a document as plain text. Tables stand apart from each other."""
    texts = [(block, _render_block(block)) for block in document]
    lines = []
    for index, (block, text) in enumerate(texts):
        apart = isinstance(block, Table) and isinstance(texts[index - 1][0], (Table, Heading))
        lines += ["", text] if index and (isinstance(block, Heading) or apart) else [text]
    return "\n".join(lines)


def _render_block(block: Block) -> str:
    match block:
        case Heading():
            return wrap_text(block.text)
        case Paragraph():
            return wrap_text(f"{block.title} {block.text}".strip(), 2)
        case BulletList():
            return "\n".join(wrap_text(f"  {item}", 4) for item in block.items)
        case Code():
            return textwrap.indent(block.text.strip(), "  ")
        case Image():
            return block.link
        case Table():
            return _render_table(block)


def _render_table(table: Table) -> str:
    """Renders a table. If it is too wide, its columns are distributed over several tables, which repeat the first
    column; long texts of the first column are shortened."""
    titles = [column.short_title or column.title for column in table.columns]
    head = [[truncate_middle(line, MAX_TITLE_WIDTH) for line in title.split("\n")] for title in titles]
    body = [[format_content(cell.content, with_reason=False) for cell in row] for row in table.cells()]
    widths = [
        max([len(text) for text in title] + [len(row[index]) for row in body]) for index, title in enumerate(head)
    ]
    align = [column.align for column in table.columns]
    parts = []
    for columns in _split_columns(widths):
        rest = sum(widths[index] + 2 for index in columns[1:])
        first = max(min(widths[0], MAX_WIDTH - rest), min(widths[0], MIN_FIRST_WIDTH))
        shown_widths = {0: first} | {index: widths[index] for index in columns[1:]}
        height = max(len(head[index]) for index in columns)
        titles_by_line = zip(*([""] * (height - len(head[index])) + head[index] for index in columns))
        rows = [[truncate_middle(row[index], shown_widths[index]) for index in columns] for row in body]
        parts.append("\n".join(_align_row(row, columns, shown_widths, align) for row in [*titles_by_line, *rows]))
    lines = [wrap_text(table.caption), ""] if table.caption else []
    numbers = [cell.content for row in table.cells() for cell in row if isinstance(cell.content, Number)]
    notes = [INTERVAL_NOTE] if any(number.interval for number in numbers) else []
    notes += [wrap_text(f"({letter}) {note}", 2) for letter, note in table.footnotes.items()]
    return "\n".join([*lines, "\n\n".join(parts), *notes])


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


def _align_row(row: Sequence[str], columns: Sequence[int], widths: dict[int, int], align: Sequence[str]) -> str:
    pad = {"r": str.rjust}
    return "  ".join(
        pad.get(align[index], str.ljust)(text, widths[index]) for index, text in zip(columns, row)
    ).rstrip()


def format_fields(fields: Iterable[tuple[str, object]], indent: int = 0, label_width: int | None = None) -> str:
    """Formats lines of a label and a text; long texts are wrapped below their start.

    Args:
        indent: spaces before the labels.
        label_width: width of the labels; None: that of the longest.
    """
    pairs = [(label, str(text)) for label, text in fields]
    width = label_width or max(len(label) for label, _ in pairs)
    return "\n".join(wrap_text(f"{'':{indent}}{label:<{width}}  {text}", indent + width + 2) for label, text in pairs)


def wrap_text(text: str, indent: int = 0) -> str:
    """Wraps a text at spaces; an address or a file name is not broken.

    Args:
        indent: spaces before the second line and those that follow.
    """
    return textwrap.fill(
        text, MAX_WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )


def truncate_middle(text: str, length: int) -> str:
    """Replaces the middle of a text that is longer than `length` characters."""
    return text if len(text) <= length else f"{text[: length // 2 - 1]}…{text[-length // 2 :]}"
