"""Documents as Markdown, LaTeX, HTML and plain text, and BibTeX references."""

import pytest

from hf_mae.reporting.bibliography import format_bibtex
from hf_mae.reporting.document import BulletList, Code, Heading, Paragraph
from hf_mae.reporting.renderers import html, latex, markdown, terminal
from hf_mae.reporting.table import Cell, Column, Number, Table

NUMBERS = {
    Number(71.234): "71.23",
    Number(71.234, 1, interval=(60.06, 80.0)): "71.2 [60.1, 80.0]",
    Number(71.2, std=0.5, interval=(60.0, 80.0), interval_digits=1): "71.20 ± 0.50 [60.0, 80.0]",
    Number(1.5, interval=(-0.5, 3.5), signed=True): "+1.50 [-0.50, +3.50]",
    Number(100, 1, reason="too few"): "100.0 [too few]",
    Number(88.2, std=0.2, printed="88.2±0.2"): "88.2 ± 0.2",
}


@pytest.mark.parametrize("number, text", NUMBERS.items(), ids=NUMBERS.values())
def test_a_number_is_the_same_in_all_formats(number, text):
    table = [Table([Column("a"), Column("b", "r")], [["x", number]])]
    assert f"| x | {text} |" in markdown.render(table) and f"<td>{text}</td>" in html.render(table)
    assert f"x & {latex.escape(text)} \\\\" in latex.render(table)
    assert terminal.render(table).splitlines()[1].split(maxsplit=1)[1] == text.replace(" [too few]", "")


def test_all_formats_contain_the_same_document():
    table = Table(
        [Column("a|b"), Column("n", "r")],
        [[Cell("x_1", bold=True, footnote_marks="a"), "50 %"], ["<i>", 2]],
        "50 % of A & B:",
        {"a": "N"},
    )
    blocks = [Heading("H & M"), Paragraph("See [@holm1979simple; @he2022mae].", "T."), BulletList(["one"]), table]
    blocks.append(Code("a_b: 1\n", "yaml"))
    text = markdown.render(blocks)
    assert "## H & M" in text and r"| a\|b | n |" in text and "| **x_1** (a) | 50 % |" in text and "&lt;i>" in text
    assert "**T.** See" in text and "- (a) N" in text and "```yaml\na_b: 1\n```" in text
    tex = latex.render(blocks)
    assert r"\cite{holm1979simple,he2022mae}" in tex and r"\textbf{x\_1}$^{\mathrm{a}}$ & 50 \% \\" in tex
    assert r"\caption{50 \% of A \& B:}" in tex and r"\textbf{T.} See" in tex and r"$^{\mathrm{a}}$ N" in tex
    page = html.render(blocks)
    assert "<td><b>x_1</b><sup>a</sup></td><td>50 %</td>" in page and "&lt;i&gt;" in page and "<sup>a</sup> N" in page
    printed = terminal.render(blocks).splitlines()
    assert printed[:3] == ["H & M", "T. See [@holm1979simple; @he2022mae].", "  one"] and "(a) N" in printed
    long = latex.render([Table([Column("n")], [[i] for i in range(40)])])
    assert "longtable" in long and "tabular" not in long


def test_wide_tables_are_divided_on_a_terminal():
    columns = [Column("name"), *(Column(f"column {number}", "r") for number in range(9))]
    lines = terminal.render([Table(columns, [["a" * 100, *[123456.78] * 9]])]).splitlines()
    assert max(map(len, lines)) <= terminal.MAX_WIDTH
    assert sum(line.count("column") for line in lines) == 9 and sum(line.startswith("name") for line in lines) == 2


def test_references_are_listed_once():
    text = format_bibtex(["he2022mae", "he2022mae", "holm1979simple"], "A data set, 2020")
    assert text.count("@inproceedings{he2022mae,") == 1 and "note = {A data set, 2020}" in text
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize("code", ["\x1b[2J", "\x9b", "\x07", "\x7f", "\u202e"])
def test_a_terminal_shows_control_characters_escaped(code):
    name = f"mu{code}cosa"
    table = Table([Column("class"), Column("images")], [[name, "3"]], caption=name)
    text = terminal.render([Heading(name), Paragraph(name), BulletList([name]), Code(name), table])
    assert code not in text and text.count("mu") >= 5
