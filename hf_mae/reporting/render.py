"""A document of headings, paragraphs, lists and tables, and its renderers: Markdown, LaTeX, HTML and .docx."""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files.atomic import atomic_write_file, write_text
from .messages import ReportingMessage


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title of the document."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; `[@key; @key]` is a citation in pandoc's syntax."""

    text: str


@dataclass(frozen=True)
class BulletList:
    """A list with bullets."""

    items: list[str]


@dataclass(frozen=True)
class Cell:
    """A table cell, with the letters of its footnotes."""

    text: str
    bold: bool = False
    footnote_marks: str = ""


@dataclass(frozen=True)
class TableBlock:
    """A table.

    Args:
        header: titles of the columns.
        rows: cells, or plain text.
        align: one letter per column: l, r, or p (text that is wrapped).
        caption: text above the table.
        footnotes: text below the table, by letter.
    """

    header: list[str]
    rows: Sequence[Sequence[Cell | str]]
    align: str
    caption: str = ""
    footnotes: dict[str, str] = field(default_factory=dict)

    def cells(self) -> list[list[Cell]]:
        """Returns the rows, with plain text converted to cells."""
        return [[Cell(cell) if isinstance(cell, str) else cell for cell in row] for row in self.rows]


Block = Heading | Paragraph | BulletList | TableBlock


# Markdown


def escape_markdown_cell(text: str) -> str:
    """Escapes text for a cell of a Markdown table: one line, with bars and the start of HTML tags escaped."""
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")


def render_markdown(blocks: Iterable[Block]) -> str:
    """Renders a document as Markdown."""
    return "\n\n".join(_markdown_block(block) for block in blocks) + "\n"


def _markdown_block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {escape_markdown_cell(block.text)}"
    if isinstance(block, Paragraph):
        return block.text.replace("<", "&lt;")
    if isinstance(block, BulletList):
        return "\n".join(f"- {escape_markdown_cell(item)}" for item in block.items)
    lines = [block.caption.replace("<", "&lt;"), ""] if block.caption else []
    lines.append("| " + " | ".join(map(escape_markdown_cell, block.header)) + " |")
    lines.append("|" + "|".join("---:" if letter == "r" else "---" for letter in block.align) + "|")
    lines += ["| " + " | ".join(map(_markdown_cell, row)) + " |" for row in block.cells()]
    notes = [f"- ({letter}) {escape_markdown_cell(note)}" for letter, note in block.footnotes.items()]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _markdown_cell(table_cell: Cell) -> str:
    text = escape_markdown_cell(table_cell.text)
    if table_cell.bold and text:
        text = f"**{text}**"
    return f"{text} ({table_cell.footnote_marks})" if table_cell.footnote_marks else text


# LaTeX

_LATEX_ESCAPES = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
LATEX_HEADER = "% \\usepackage{booktabs,longtable}\n"
_CITATION = re.compile(r"\[@([\w; @]+)\]")  # pandoc's syntax
MAX_FLOAT_ROWS = 25  # longer tables may break across pages (longtable)


def escape_latex(text: str) -> str:
    """Escapes the special characters of LaTeX."""
    return re.sub(r"[\\~^±&%$#_{}]", lambda match: _LATEX_ESCAPES.get(match[0], "\\" + match[0]), text)


def render_latex(blocks: Iterable[Block]) -> str:
    """Renders a document as LaTeX, to be included in another document that loads booktabs and longtable."""
    return LATEX_HEADER + "\n\n".join(_latex_block(block) for block in blocks) + "\n"


def _latex_block(block: Block) -> str:
    if isinstance(block, Heading):
        return rf"\{'sub' * min(2, block.level - 1)}section*{{{escape_latex(block.text)}}}"
    if isinstance(block, Paragraph):
        return _CITATION.sub(lambda match: rf"\cite{{{match[1].replace('; @', ',')}}}", escape_latex(block.text))
    if isinstance(block, BulletList):
        return "\n".join(
            [r"\begin{itemize}", *(rf"\item {escape_latex(item)}" for item in block.items), r"\end{itemize}"]
        )
    width = 0.6 / max(1, block.align.count("p"))
    columns = block.align.replace("p", rf"p{{{width:.2f}\textwidth}}")
    body = [" & ".join(map(escape_latex, block.header)) + r" \\", r"\midrule"]
    body += [" & ".join(map(_latex_cell, row)) + r" \\" for row in block.cells()]
    caption = [rf"\caption{{{escape_latex(block.caption)}}}"] if block.caption else []
    notes = " ".join(rf"$^{{{letter}}}$ {escape_latex(note)}" for letter, note in block.footnotes.items())
    below = [rf"\par\footnotesize {notes}"] if notes else []
    if len(block.rows) > MAX_FLOAT_ROWS:
        above = [line + r" \\" for line in caption]
        return "\n".join(
            [
                rf"\begin{{longtable}}{{{columns}}}",
                *above,
                r"\toprule",
                *body,
                r"\bottomrule",
                r"\end{longtable}",
                *below,
            ]
        )
    opened = [r"\begin{table}", r"\centering", *caption, rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    return "\n".join([*opened, *body, r"\bottomrule", r"\end{tabular}", *below, r"\end{table}"])


def _latex_cell(table_cell: Cell) -> str:
    text = escape_latex(table_cell.text)
    if table_cell.bold and text:
        text = rf"\textbf{{{text}}}"
    return text + (rf"$^{{\mathrm{{{table_cell.footnote_marks}}}}}$" if table_cell.footnote_marks else "")


# HTML, for notebooks


def render_html(blocks: Iterable[Block]) -> str:
    """Renders a document as HTML."""
    return "\n".join(_html_block(block) for block in blocks)


def _html_block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        return f"<p>{html.escape(block.text)}</p>"
    if isinstance(block, BulletList):
        return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in block.items) + "</ul>"
    head = "".join(f"<th>{html.escape(name)}</th>" for name in block.header)
    rows = ["<tr>" + "".join(f"<td>{_html_cell(cell)}</td>" for cell in row) + "</tr>" for row in block.cells()]
    caption = f"<caption>{html.escape(block.caption)}</caption>" if block.caption else ""
    notes = [f"<p><sup>{letter}</sup> {html.escape(note)}</p>" for letter, note in block.footnotes.items()]
    return "\n".join([f"<table>{caption}<tr>{head}</tr>", *rows, "</table>", *notes])


def _html_cell(table_cell: Cell) -> str:
    text = f"<b>{html.escape(table_cell.text)}</b>" if table_cell.bold else html.escape(table_cell.text)
    return text + (f"<sup>{table_cell.footnote_marks}</sup>" if table_cell.footnote_marks else "")


# .docx


def write_document(blocks: Sequence[Block], path: Path, image_paths: Sequence[Path] = ()) -> list[str]:
    """Writes a document as Markdown and LaTeX, and as .docx if python-docx is installed.

    Args:
        path: the file without its suffix.
        image_paths: images for the end of the .docx; missing files are skipped.

    Returns:
        The names of the files.
    """
    write_text(path.with_name(f"{path.name}.md"), render_markdown(blocks))
    write_text(path.with_name(f"{path.name}.tex"), render_latex(blocks))
    names = [f"{path.name}.md", f"{path.name}.tex"]
    if find_spec("docx"):
        write_docx(blocks, path.with_name(f"{path.name}.docx"), [image for image in image_paths if image.is_file()])
        names.append(f"{path.name}.docx")
    return names


def write_docx(blocks: Iterable[Block], path: Path, image_paths: Sequence[Path] = ()) -> None:
    """Writes a document as .docx, with images at its end.

    Raises:
        UsageError: If python-docx is not installed.
    """
    try:
        import docx
        from docx.shared import Cm, Pt
    except ImportError:
        raise UsageError(ReportingMessage.PYTHON_DOCX_MISSING) from None
    document = docx.Document()
    document.styles["Normal"].font.size = Pt(10)
    for block in blocks:
        if isinstance(block, Heading):
            document.add_heading(_replace_illegal_xml(block.text), min(block.level, 4))
        elif isinstance(block, Paragraph):
            document.add_paragraph(_replace_illegal_xml(block.text))
        elif isinstance(block, BulletList):
            for item in block.items:
                document.add_paragraph(_replace_illegal_xml(item), style="List Bullet")
        else:
            _add_table(document, block, Pt(8))
    for image in image_paths:
        document.add_picture(str(image), width=Cm(16))
    with atomic_write_file(path) as temporary:
        document.save(str(temporary))


def _add_table(document: Any, table_block: TableBlock, font_size: Any) -> None:
    if table_block.caption:
        document.add_paragraph(_replace_illegal_xml(table_block.caption))
    table = document.add_table(rows=0, cols=len(table_block.header), style="Table Grid")
    for row in [[Cell(name, bold=True) for name in table_block.header], *table_block.cells()]:
        for target, cell in zip(table.add_row().cells, row):
            run = target.paragraphs[0].add_run(_replace_illegal_xml(cell.text))
            run.bold, run.font.size = cell.bold, font_size
            if cell.footnote_marks:
                target.paragraphs[0].add_run(f" {cell.footnote_marks}").font.superscript = True
    for letter, note in table_block.footnotes.items():
        document.add_paragraph(_replace_illegal_xml(f"({letter}) {note}"))


def _replace_illegal_xml(text: str) -> str:
    """Replaces the characters that XML does not allow."""
    return re.sub(r"[^\t\n\r\u0020-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]", "?", text)
