"""Tables and lists of fields as plain text, at most 80 columns wide. Imports no large library."""

import textwrap
from collections.abc import Iterable, Sequence

MAX_WIDTH = 80  # columns of a terminal
MIN_CELL_WIDTH = 12  # of the first column, if it is shortened


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    """Formats a table. If it is too wide, the texts of its first column are shortened.

    Args:
        header: titles of the columns; a title can have several lines.
        rows: the cells.
        align: one letter per column: l or r.
    """
    titles = [title.split("\n") for title in header]
    height = max(map(len, titles))
    head = list(zip(*([""] * (height - len(title)) + title for title in titles)))
    body = [list(row) for row in rows]
    excess = sum(_column_widths([*head, *body])) + 2 * (len(header) - 1) - MAX_WIDTH
    if excess > 0:
        width = max(MIN_CELL_WIDTH, _column_widths([*head, *body])[0] - excess)
        body = [[truncate_middle(row[0], width), *row[1:]] for row in body]
    widths = _column_widths([*head, *body])
    pad = {"l": str.ljust, "r": str.rjust}
    return "\n".join(
        "  ".join(pad[letter](cell, width) for letter, cell, width in zip(align, row, widths)).rstrip()
        for row in [*head, *body]
    )


def _column_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows)]


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
