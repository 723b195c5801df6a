"""Documents as LaTeX, to be included in another document that loads booktabs, longtable and graphicx."""

import re

from ..document import Block, BulletList, Code, Document, Heading, Image, Paragraph
from ..table import Cell, Table, format_content

ESCAPES = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
ESCAPES |= {"|": r"\textbar{}", "`": r"\textasciigrave{}", "-": "-{}", "[": "{[}", "*": "{*}"}
# A hyphen before another one (a dash), and characters that a command before the text would read as its option.
SPECIAL = re.compile(r"[\\~^±&%$#_{}|`]|-(?=-)|^[\[*]")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
PACKAGES = "% \\usepackage{booktabs,longtable}\n"
CITATION = re.compile(r"\[@([\w; @]+)\]")  # pandoc's syntax
MAX_FLOAT_ROWS = 25  # longer tables may break across pages (longtable)


def escape(text: str) -> str:
    """Escapes the special characters of LaTeX, on one line."""
    text = CONTROL.sub("?", " ".join(text.split()))
    return SPECIAL.sub(lambda match: ESCAPES.get(match[0], "\\" + match[0]), text)


def render(document: Document) -> str:
    """Renders a document as LaTeX."""
    return PACKAGES + "\n\n".join(map(_render_block, document)) + "\n"


def _render_block(block: Block) -> str:
    match block:
        case Heading():
            return rf"\{'sub' * min(2, block.level - 1)}section*{{{escape(block.text)}}}"
        case Paragraph():
            title = rf"\textbf{{{escape(block.title)}}} " if block.title else ""
            return title + CITATION.sub(lambda match: rf"\cite{{{match[1].replace('; @', ',')}}}", escape(block.text))
        case BulletList():
            items = [rf"\item {escape(item)}" for item in block.items]
            return "\n".join([r"\begin{itemize}", *items, r"\end{itemize}"])
        case Code():
            text = CONTROL.sub("?", block.text.strip()).replace(r"\end{", r"\end {")
            return "\n".join([r"\begin{verbatim}", text, r"\end{verbatim}"])
        case Image():
            return rf"\includegraphics[width=\linewidth]{{{block.link}}}"
        case Table():
            return _render_table(block)


def _render_table(table: Table) -> str:
    align = "".join(column.align for column in table.columns)
    columns = align.replace("p", rf"p{{{0.6 / max(1, align.count('p')):.2f}\textwidth}}")
    body = [" & ".join(escape(column.title) for column in table.columns) + r" \\", r"\midrule"]
    body += [" & ".join(map(_render_cell, row)) + r" \\" for row in table.cells()]
    caption = [rf"\caption{{{escape(table.caption)}}}"] if table.caption else []
    notes = " ".join(rf"$^{{\mathrm{{{letter}}}}}$ {escape(note)}" for letter, note in table.footnotes.items())
    below = [rf"\par\footnotesize {notes}"] if notes else []
    if len(table.rows) > MAX_FLOAT_ROWS:
        above = [rf"\begin{{longtable}}{{{columns}}}", *(line + r" \\" for line in caption), r"\toprule"]
        return "\n".join([*above, *body, r"\bottomrule", r"\end{longtable}", *below])
    above = [r"\begin{table}", r"\centering", *caption, rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    return "\n".join([*above, *body, r"\bottomrule", r"\end{tabular}", *below, r"\end{table}"])


def _render_cell(cell: Cell) -> str:
    text = escape(format_content(cell.content))
    if cell.bold and text:
        text = rf"\textbf{{{text}}}"
    return text + (rf"$^{{\mathrm{{{cell.footnote_marks}}}}}$" if cell.footnote_marks else "")
