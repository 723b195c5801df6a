"""Tables of facts: every renderer formats the same cells. Imports no large library."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

TOO_FEW_FOR_INTERVAL = "too few for an interval"
# Texts of `evaluation.intervals.IntervalReason`
REASON_TEXTS = {
    "too_few_images": "too few images for an interval",
    "too_few_groups": "too few patients or videos for an interval",
    "not_estimable": "no interval",
}


@dataclass(frozen=True)
class Number:
    """A number with its uncertainty.

    Args:
        value: the number, as it is shown (in per cent, for example).
        digits: decimals of the value and the standard deviation.
        std: standard deviation over runs.
        interval_digits: decimals of the ends of the interval; None: `digits`.
        reason: reason for a missing interval, a code of `REASON_TEXTS` or a text; empty: none was computed.
        printed: the number as it is printed in a publication.
        signed: show the sign of positive numbers, too (differences).
    """

    value: float
    digits: int = 2
    std: float | None = None
    interval: tuple[float, float] | None = None
    interval_digits: int | None = None
    reason: str = ""
    printed: str = ""
    signed: bool = False

    def format(self, with_reason: bool = True) -> str:
        """Formats the number, its standard deviation and its interval."""
        if self.printed:
            return self.printed.replace("±", " ± ")
        sign = "+" if self.signed else ""
        text = f"{self.value:{sign}.{self.digits}f}"
        if self.std is not None:
            text += f" ± {self.std:.{self.digits}f}"
        if self.interval is not None:
            digits = self.digits if self.interval_digits is None else self.interval_digits
            text += " [{0:{2}.{3}f}, {1:{2}.{3}f}]".format(*self.interval, sign, digits)
        elif self.reason and with_reason:
            text += f" [{REASON_TEXTS.get(self.reason, self.reason)}]"
        return text


@dataclass(frozen=True)
class Cell:
    """A marked table cell: bold, or with the letters of its footnotes."""

    content: "Content"
    bold: bool = False
    footnote_marks: str = ""


Content = str | int | Number | None  # None: missing
CellLike = Cell | Content


def as_cell(value: CellLike) -> Cell:
    """Converts a value to a cell without marks."""
    return value if isinstance(value, Cell) else Cell(value)


def format_content(content: Content, with_reason: bool = True) -> str:
    """Formats the content of a cell as text."""
    if isinstance(content, Number):
        return content.format(with_reason)
    return "" if content is None else str(content)


@dataclass(frozen=True)
class Column:
    """A column.

    Args:
        title: title of the column.
        align: `l`, `r`, or `p` (text that is wrapped).
        below: on a terminal, print the cell below its row, if it has a text.
        short_title: title for a terminal, which can have several lines; empty: `title`.
    """

    title: str
    align: str = "l"
    short_title: str = ""
    below: bool = False


def number_columns(titles: Sequence[str]) -> list[Column]:
    """Makes columns of numbers."""
    return [Column(title, "r") for title in titles]


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        rows: one cell per column.
        caption: text above the table.
        footnotes: text below the table, by letter.
        bars: a PDF page shows the numbers of the last column, in per cent, as bars.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[CellLike]]
    caption: str = ""
    footnotes: dict[str, str] = field(default_factory=dict)
    bars: bool = False

    def cells(self) -> list[list[Cell]]:
        """Returns the rows as cells."""
        return [[as_cell(value) for value in row] for row in self.rows]

    @property
    def has_titles(self) -> bool:
        """Whether a column has a title."""
        return any(column.title for column in self.columns)

    def transpose(self) -> "Table":
        """Exchanges rows and columns; the first column contains the titles."""
        first, *others = self.columns
        head = [Column(first.title)] + [Column(format_content(row[0].content), "r") for row in self.cells()]
        body = [[column.title, *(row[i] for row in self.rows)] for i, column in enumerate(others, 1)]
        return replace(self, columns=head, rows=body)


def fields_table(fields: Iterable[tuple[str, CellLike]], caption: str = "") -> Table:
    """Builds a table without titles: one row per label and value."""
    return Table([Column(""), Column("", "p")], [[label, value] for label, value in fields], caption)
