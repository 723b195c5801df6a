"""Documents as PDF pages, drawn with matplotlib."""

import textwrap
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from ...data.images.image_io import read_rgb
from ...files.atomic import atomic_write_file
from ..document import Block, BulletList, Code, Document, Heading, Image, Paragraph
from ..figures.style import DARK, LIGHT, STYLE, PlainTextFigure, truncate_text
from ..table import Number, Table, format_content

WIDTH, HEIGHT = 8.27, 11.69  # inches (A4)
MARGIN = 0.7  # inches
FONT_SIZE, LINE_HEIGHT = 8, 0.165  # points, inches
LINE_LENGTH = 118  # characters
HEADING_SIZES = {1: 16, 2: 11}  # points
BAR_HEIGHT, MAX_BARS_HEIGHT = 0.26, 2.3  # inches
IMAGES_PER_ROW, IMAGE_HEIGHT = 4, 1.2  # inches, with the title
MAX_LABEL_LENGTH = 28  # characters


class _Pages:
    """The pages of a document, filled from the top."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []
        self.top = 0.0

    def take(self, height: float) -> float:
        """Reserves a strip, on a new page if it does not fit; returns its upper end in inches from the bottom."""
        if not self.figures or self.top - height < MARGIN:
            self.figures.append(PlainTextFigure(figsize=(WIDTH, HEIGHT)))
            self.top = HEIGHT - MARGIN
        self.top -= height
        return self.top + height

    def add_text(self, text: str, size: float = FONT_SIZE, **style: Any) -> None:
        """Draws lines of text."""
        scale = size / FONT_SIZE
        top = self.take(LINE_HEIGHT * scale * (text.count("\n") + 1) + 0.04)
        self.figures[-1].text(MARGIN / WIDTH, top / HEIGHT, text, fontsize=size, va="top", linespacing=1.45, **style)

    def add_axes(self, left: float, top: float, width: float, height: float) -> Any:
        """Adds axes; all in inches, `top` from the bottom of the page."""
        return self.figures[-1].add_axes((left / WIDTH, (top - height) / HEIGHT, width / WIDTH, height / HEIGHT))


def write(document: Document, path: Path) -> None:
    """Writes a document as PDF."""
    with rc_context(STYLE), atomic_write_file(path) as temporary:
        with PdfPages(temporary, metadata={"CreationDate": None}) as pdf:
            for figure in draw(document):
                figure.savefig(pdf, format="pdf")


def draw(document: Document) -> list[Figure]:
    """Draws the pages of a document. Consecutive images are side by side."""
    pages = _Pages()
    for is_image, blocks in groupby(document, lambda block: isinstance(block, Image)):
        if is_image:
            _draw_images(pages, [block for block in blocks if isinstance(block, Image)])
        else:
            for block in blocks:
                _draw_block(pages, block)
    return pages.figures


def _draw_block(pages: _Pages, block: Block) -> None:
    match block:
        case Heading():
            pages.take(0.1)
            style = {"color": DARK} if block.level > 1 else {}
            pages.add_text(truncate_text(block.text, 70), HEADING_SIZES.get(block.level, 9), weight="bold", **style)
        case Paragraph():
            pages.add_text(textwrap.fill(f"{block.title} {block.text}".strip(), LINE_LENGTH))
        case BulletList():
            lines = [textwrap.fill(f"•  {item}", LINE_LENGTH, subsequent_indent="   ") for item in block.items]
            pages.add_text("\n".join(lines))
        case Code():
            pages.add_text(block.text.strip(), 7, family="monospace")
        case Table():
            (_draw_bars if block.bars else _draw_table)(pages, block)
        case Image():
            _draw_images(pages, [block])


def _draw_table(pages: _Pages, table: Table) -> None:
    """Draws a table as columns of text."""
    if table.caption:
        pages.add_text(textwrap.fill(table.caption, LINE_LENGTH))
    rows = [
        [column.title for column in table.columns],
        *([format_content(c.content) for c in r] for r in table.cells()),
    ]
    lengths = [max(len(row[index]) for row in rows) + 2 for index in range(len(table.columns))]
    top, left = pages.take(LINE_HEIGHT * len(rows) + 0.08), MARGIN
    for index, length in enumerate(lengths):
        text = "\n".join(row[index] for row in rows)
        pages.figures[-1].text(left / WIDTH, top / HEIGHT, text, fontsize=7, va="top", linespacing=1.6)
        left += (WIDTH - 2 * MARGIN) * length / sum(lengths)
    for letter, note in table.footnotes.items():
        pages.add_text(textwrap.fill(f"({letter}) {note}", LINE_LENGTH))


def _draw_bars(pages: _Pages, table: Table) -> None:
    """Draws the numbers of the last column, in per cent, as bars with lines for their intervals."""
    cells = [(format_content(row[0].content), row[-1].content) for row in table.cells()]
    rows = [(label, number) for label, number in cells if isinstance(number, Number)]
    height = min(MAX_BARS_HEIGHT, BAR_HEIGHT * len(rows))
    axes = pages.add_axes(2.1, pages.take(height + 0.45), 3.4, height)
    size = min(FONT_SIZE, 0.8 * 72 * height / len(rows))
    for row, (_, number) in enumerate(rows):
        axes.barh(row, number.value, color=LIGHT, height=0.6)
        if number.interval is not None:
            axes.plot(number.interval, (row, row), color="black", linewidth=1)
        axes.text(1.03, row, number.format(), transform=axes.get_yaxis_transform(), va="center", fontsize=size)
    axes.set_yticks(range(len(rows)), [truncate_text(label, MAX_LABEL_LENGTH) for label, _ in rows], fontsize=size)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel=table.caption)


def _draw_images(pages: _Pages, images: list[Image]) -> None:
    """Draws images in rows, with their titles above."""
    width = (WIDTH - 2 * MARGIN) / IMAGES_PER_ROW
    for start in range(0, len(images), IMAGES_PER_ROW):
        top = pages.take(IMAGE_HEIGHT)
        for column, image in enumerate(images[start : start + IMAGES_PER_ROW]):
            axes = pages.add_axes(MARGIN + column * width, top - 0.3, width - 0.15, IMAGE_HEIGHT - 0.35)
            axes.imshow(read_rgb(image.path))
            axes.set_axis_off()
            axes.set_title(image.title, fontsize=6, loc="left", pad=2)
