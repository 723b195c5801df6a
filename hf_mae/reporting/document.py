"""A document of headings, paragraphs, lists and tables, as Markdown, LaTeX, HTML and .docx: written once, shown four
ways."""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files.writing import whole_file, write_text


@dataclass(frozen=True)
class Heading:
    """A heading of a level (1: of the whole)."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; `[@key; @key]` cites, as pandoc writes it."""

    text: str


@dataclass(frozen=True)
class Points:
    """A list."""

    items: list[str]


@dataclass(frozen=True)
class Cell:
    """What stands in a table, with letters that refer to its notes."""

    text: str
    bold: bool = False
    marks: str = ""


@dataclass(frozen=True)
class Grid:
    """A table.

    Args:
        head: of the columns.
        rows: of cells, or of plain text.
        align: a letter for each column: l, r, or p (text that is broken into lines).
        caption: above it (below it stand the notes).
        notes: by letter.
    """

    head: list[str]
    rows: Sequence[Sequence[Cell | str]]
    align: str
    caption: str = ""
    notes: dict[str, str] = field(default_factory=dict)

    def cells(self) -> list[list[Cell]]:
        """Every row as cells."""
        return [[Cell(one) if isinstance(one, str) else one for one in row] for row in self.rows]


Block = Heading | Paragraph | Points | Grid


# Markdown


def cell(text: str) -> str:
    """Text for a cell of a Markdown table: one line, whose bars end no cell, and without a tag that is alive."""
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")


def markdown(blocks: Iterable[Block]) -> str:
    """A document as Markdown."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {cell(block.text)}"
    if isinstance(block, Paragraph):
        return block.text.replace("<", "&lt;")
    if isinstance(block, Points):
        return "\n".join(f"- {cell(item)}" for item in block.items)
    lines = [block.caption.replace("<", "&lt;"), ""] if block.caption else []
    lines.append("| " + " | ".join(map(cell, block.head)) + " |")
    lines.append("|" + "|".join("---:" if letter == "r" else "---" for letter in block.align) + "|")
    lines += ["| " + " | ".join(map(_markdown_cell, row)) + " |" for row in block.cells()]
    notes = [f"- ({letter}) {cell(note)}" for letter, note in block.notes.items()]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _markdown_cell(one: Cell) -> str:
    text = f"**{cell(one.text)}**" if one.bold and one.text else cell(one.text)
    return f"{text} ({one.marks})" if one.marks else text


# LaTeX

_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
LATEX_HEAD = "% \\usepackage{booktabs,longtable}\n"
_CITATION = re.compile(r"\[@([\w; @]+)\]")  # as pandoc writes it
LONG = 25  # rows of a table that may go over several pages


def tex(text: str) -> str:
    """Text with nothing in it that LaTeX obeys."""
    return re.sub(r"[\\~^±&%$#_{}]", lambda match: _TEX.get(match[0], "\\" + match[0]), text)


def latex(blocks: Iterable[Block]) -> str:
    """A document as LaTeX, to be put into another one (the tables need booktabs and longtable)."""
    return LATEX_HEAD + "\n\n".join(_latex(block) for block in blocks) + "\n"


def _latex(block: Block) -> str:
    if isinstance(block, Heading):
        return rf"\{'sub' * min(2, block.level - 1)}section*{{{tex(block.text)}}}"
    if isinstance(block, Paragraph):
        return _CITATION.sub(lambda found: rf"\cite{{{found[1].replace('; @', ',')}}}", tex(block.text))
    if isinstance(block, Points):
        return "\n".join([r"\begin{itemize}", *(rf"\item {tex(item)}" for item in block.items), r"\end{itemize}"])
    width = 0.6 / max(1, block.align.count("p"))
    columns = block.align.replace("p", rf"p{{{width:.2f}\textwidth}}")
    body = [" & ".join(map(tex, block.head)) + r" \\", r"\midrule"]
    body += [" & ".join(map(_latex_cell, row)) + r" \\" for row in block.cells()]
    caption = [rf"\caption{{{tex(block.caption)}}}"] if block.caption else []
    notes = " ".join(rf"$^{{{letter}}}$ {tex(note)}" for letter, note in block.notes.items())
    below = [rf"\par\footnotesize {notes}"] if notes else []
    if len(block.rows) > LONG:
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


def _latex_cell(one: Cell) -> str:
    text = rf"\textbf{{{tex(one.text)}}}" if one.bold and one.text else tex(one.text)
    return text + (rf"$^{{\mathrm{{{one.marks}}}}}$" if one.marks else "")


# HTML, for notebooks


def as_html(blocks: Iterable[Block]) -> str:
    """A document as HTML."""
    return "\n".join(_html(block) for block in blocks)


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        return f"<p>{html.escape(block.text)}</p>"
    if isinstance(block, Points):
        return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in block.items) + "</ul>"
    head = "".join(f"<th>{html.escape(name)}</th>" for name in block.head)
    rows = ["<tr>" + "".join(f"<td>{_html_cell(one)}</td>" for one in row) + "</tr>" for row in block.cells()]
    caption = f"<caption>{html.escape(block.caption)}</caption>" if block.caption else ""
    notes = [f"<p><sup>{letter}</sup> {html.escape(note)}</p>" for letter, note in block.notes.items()]
    return "\n".join([f"<table>{caption}<tr>{head}</tr>", *rows, "</table>", *notes])


def _html_cell(one: Cell) -> str:
    text = f"<b>{html.escape(one.text)}</b>" if one.bold else html.escape(one.text)
    return text + (f"<sup>{one.marks}</sup>" if one.marks else "")


# .docx


def write_document(blocks: Sequence[Block], path: Path, pictures: Sequence[Path] = ()) -> list[str]:
    """A document as Markdown and LaTeX, and where python-docx is installed as .docx; returns the names of the files.

    Args:
        path: without a suffix.
        pictures: for the end of the .docx; those that there are.
    """
    write_text(path.with_name(f"{path.name}.md"), markdown(blocks))
    write_text(path.with_name(f"{path.name}.tex"), latex(blocks))
    names = [f"{path.name}.md", f"{path.name}.tex"]
    if find_spec("docx"):
        write_docx(blocks, path.with_name(f"{path.name}.docx"), [one for one in pictures if one.is_file()])
        names.append(f"{path.name}.docx")
    return names


def write_docx(blocks: Iterable[Block], path: Path, pictures: Sequence[Path] = ()) -> None:
    """A document for Word and its like, with pictures at its end.

    Raises:
        UsageError: python-docx is not installed.
    """
    try:
        import docx
        from docx.shared import Cm, Pt
    except ImportError:
        raise UsageError("A .docx needs python-docx: pip install 'hf_mae[docx]'.") from None
    document = docx.Document()
    document.styles["Normal"].font.size = Pt(10)
    for block in blocks:
        if isinstance(block, Heading):
            document.add_heading(_legal(block.text), min(block.level, 4))
        elif isinstance(block, Paragraph):
            document.add_paragraph(_legal(block.text))
        elif isinstance(block, Points):
            for item in block.items:
                document.add_paragraph(_legal(item), style="List Bullet")
        else:
            _add_table(document, block, Pt(8))
    for picture in pictures:
        document.add_picture(str(picture), width=Cm(16))
    with whole_file(path) as temporary:
        document.save(str(temporary))


def _add_table(document: Any, grid: Grid, size: Any) -> None:
    if grid.caption:
        document.add_paragraph(_legal(grid.caption))
    table = document.add_table(rows=0, cols=len(grid.head), style="Table Grid")
    for row in [[Cell(name, bold=True) for name in grid.head], *grid.cells()]:
        for place, one in zip(table.add_row().cells, row):
            run = place.paragraphs[0].add_run(_legal(one.text))
            run.bold, run.font.size = one.bold, size
            if one.marks:
                place.paragraphs[0].add_run(f" {one.marks}").font.superscript = True
    for letter, note in grid.notes.items():
        document.add_paragraph(_legal(f"({letter}) {note}"))


def _legal(text: str) -> str:
    """Without the characters that XML has no place for."""
    return re.sub(r"[^\t\n\r\u0020-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]", "?", text)
