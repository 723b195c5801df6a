"""Documents as .docx, with python-docx."""

import re
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ...files.atomic import atomic_write_file
from ..document import Block, BulletList, Code, Document, Heading, Image, Paragraph
from ..messages import ReportingMessage
from ..table import Cell, Table, format_content

FONT_SIZE, TABLE_FONT_SIZE = 10, 8  # points
IMAGE_WIDTH = 16  # cm


def write(document: Document, path: Path) -> None:
    """Writes a document as .docx.

    Raises:
        UsageError: If python-docx is not installed.
    """
    try:
        import docx
        from docx.shared import Pt
    except ImportError:
        raise UsageError(ReportingMessage.PYTHON_DOCX_MISSING) from None
    word = docx.Document()
    word.styles["Normal"].font.size = Pt(FONT_SIZE)
    for block in document:
        _add_block(word, block)
    with atomic_write_file(path) as temporary:
        word.save(str(temporary))


def _add_block(word: Any, block: Block) -> None:
    from docx.shared import Cm

    match block:
        case Heading():
            word.add_heading(_replace_illegal_xml(block.text), min(block.level, 4))
        case Paragraph():
            paragraph = word.add_paragraph()
            if block.title:
                paragraph.add_run(_replace_illegal_xml(f"{block.title} ")).bold = True
            paragraph.add_run(_replace_illegal_xml(block.text))
        case BulletList():
            for item in block.items:
                word.add_paragraph(_replace_illegal_xml(item), style="List Bullet")
        case Code():
            word.add_paragraph().add_run(_replace_illegal_xml(block.text.strip())).font.name = "Courier New"
        case Image():
            word.add_picture(str(block.path), width=Cm(IMAGE_WIDTH))
        case Table():
            _add_table(word, block)


def _add_table(word: Any, table: Table) -> None:
    from docx.shared import Pt

    if table.caption:
        word.add_paragraph(_replace_illegal_xml(table.caption))
    grid = word.add_table(rows=0, cols=len(table.columns), style="Table Grid")
    for row in [[Cell(column.title, bold=True) for column in table.columns], *table.cells()]:
        for target, cell in zip(grid.add_row().cells, row):
            run = target.paragraphs[0].add_run(_replace_illegal_xml(format_content(cell.content)))
            run.bold, run.font.size = cell.bold, Pt(TABLE_FONT_SIZE)
            if cell.footnote_marks:
                target.paragraphs[0].add_run(f" {cell.footnote_marks}").font.superscript = True
    for letter, note in table.footnotes.items():
        word.add_paragraph(_replace_illegal_xml(f"({letter}) {note}"))


def _replace_illegal_xml(text: str) -> str:
    """Replaces the characters that XML does not allow."""
    return re.sub(r"[^\t\n\r\u0020-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]", "?", text)
