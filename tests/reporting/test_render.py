"""Documents as Markdown, LaTeX, HTML and plain text, and BibTeX references."""

import re
import string
from pathlib import Path
from tempfile import TemporaryDirectory

import docx
import lxml.html
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hf_mae.reporting.bibliography import format_bibtex
from hf_mae.reporting.document import BulletList, Code, Heading, Paragraph
from hf_mae.reporting.renderers import docx as docx_renderer
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


# Names with every special character

NAMES = [
    *(f"a{character}b" for character in string.punctuation),
    *(f"{character}a{character}" for character in string.punctuation),
    *("*a* **b**", "_a_ __b__", "`a`", "``a` b", "[a](b)", "![a](b)", "<b>a</b>", "</script><script>alert(1)</script>"),
    *("a \\| b", "a\\\\", "\\end{tabular}", "\\end{verbatim}", "$x$", "$$", "&lt;", "&amp;", "&#60;", "---", "# a #"),
    *(
        "null",
        "yes",
        "1e3",
        "~",
        "~~a~~",
        "a -- b",
        "Ärzte",
        "\u0645\u0631\u0636",
        "\U0001f600",
        "\u202eabc",
        "=1+1",
        "'a'",
    ),
    *(
        "{{ a }}",
        "{% a %}",
        "%s",
        "a:b: c",
        "- a",
        "1. a",
        "> a",
        "[ ] a",
        "[@a]",
        "http://a.b/c_d_e",
        "a@b.c",
        "!important",
    ),
]


def make_documents(name):
    table = Table([Column("class"), Column(name)], [[name, Cell(name, bold=True)], [Number(71.2), name]])
    return [Heading(name), table]


@pytest.mark.parametrize("parse", ["markdown", "html", "docx"])
@settings(max_examples=60)
@given(
    st.one_of(st.sampled_from(NAMES), st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1))
)
def test_names_are_read_back_from_every_format(parse, name):
    texts = {"markdown": read_markdown, "html": read_html, "docx": read_docx}[parse](make_documents(name))
    assert texts == [name, "class", name, name, name, "71.20", name]


@pytest.mark.parametrize("name", NAMES)
def test_every_special_name_is_read_back(name):
    for read in (read_markdown, read_html):
        assert read(make_documents(name)) == [name, "class", name, name, name, "71.20", name]


def read_markdown(document):
    parser = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")
    return read_page(parser.render(markdown.render(document)))


def read_html(document):
    return read_page(html.render(document))


def read_page(page):
    """Returns the texts of headings and cells."""
    root = lxml.html.fromstring(f"<div>{page}</div>")
    allowed = {"div", "h1", "h2", "table", "thead", "tbody", "tr", "th", "td", "b", "strong", "sup"}
    assert {element.tag for element in root.iter()} <= allowed, page
    return [element.text_content().strip() for element in root.iter("h1", "h2", "th", "td")]


def read_docx(document):
    with TemporaryDirectory() as folder:
        docx_renderer.write(document, Path(folder, "a.docx"))
        word = docx.Document(Path(folder, "a.docx"))
    return [word.paragraphs[0].text, *(cell.text for row in word.tables[0].rows for cell in row.cells)]


COMMANDS = r"textbackslash|textasciitilde|textasciicircum|textbar|textasciigrave"
UNESCAPED = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^"}
UNESCAPED |= {"textbar": "|", "textasciigrave": "`"}


@given(st.one_of(st.sampled_from(NAMES), st.text(string.printable)))
def test_latex_shows_a_name_as_it_is(name):
    """Only known commands remain, every brace is balanced, and undoing them gives the name."""
    tex = latex.escape(name)
    read = re.sub(rf"\\({COMMANDS})\{{\}}|\\([&%$#_{{}}])|(?<=-)\{{\}}|\{{([\[*])\}}", unescape, tex)
    assert read == latex.CONTROL.sub("?", " ".join(name.split()))
    assert not re.search(r"(?<!\\)[&%$#_~^]", tex) and not tex.startswith(("[", "*"))
    rows = latex.render([Table([Column(name), Column("n")], [[name, name]], name)])
    assert len(re.findall(r"(?<!\\)&", rows)) == 2  # one separator in each row
    assert latex.render([Code(f"{name}\\end{{verbatim}}")]).count(r"\end{verbatim}") == 1


def unescape(match):
    return UNESCAPED.get(match[1], "") or match[2] or match[3] or ""


@given(st.one_of(st.sampled_from(NAMES), st.text(string.printable)))
def test_a_name_in_code_stays_in_its_block(name):
    tokens = MarkdownIt().parse(markdown.render([Code(f"x: {name}", "yaml"), Heading("end")]))
    assert [token.type for token in tokens][:2] == ["fence", "heading_open"]


def test_a_name_cannot_begin_a_row_of_a_table():
    lines = terminal.render(
        [Table([Column("class"), Column("n", "r")], [["a\nb\x1b[31m\r", 1], ["c", 2]])]
    ).splitlines()
    assert lines[1:] == ["a\\nb\\x1b[31m\\r  1", "c               2"] and len({len(line) for line in lines}) == 1
