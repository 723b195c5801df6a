"""Documents as Markdown, LaTeX and HTML, and BibTeX references."""

from hf_mae.reporting.bibliography import format_bibtex
from hf_mae.reporting.render import (
    BulletList,
    Cell,
    Heading,
    Paragraph,
    TableBlock,
    render_html,
    render_latex,
    render_markdown,
)


def test_all_formats_contain_the_same_document():
    table = TableBlock(
        ["a|b", "n"],
        [[Cell("x_1", bold=True, footnote_marks="a"), "50 %"], ["<i>", "2"]],
        "lr",
        "50 % of A & B:",
        {"a": "N"},
    )
    blocks = [Heading("H & M"), Paragraph("See [@holm1979simple; @he2022mae]."), BulletList(["one"]), table]
    text = render_markdown(blocks)
    assert "## H & M" in text and r"| a\|b | n |" in text and "| **x_1** (a) | 50 % |" in text and "&lt;i>" in text
    tex = render_latex(blocks)
    assert r"\cite{holm1979simple,he2022mae}" in tex and r"\textbf{x\_1}$^{\mathrm{a}}$ & 50 \% \\" in tex
    assert r"\caption{50 \% of A \& B:}" in tex
    page = render_html(blocks)
    assert "<td><b>x_1</b><sup>a</sup></td><td>50 %</td>" in page and "&lt;i&gt;" in page
    long = render_latex([TableBlock(["n"], [[str(i)] for i in range(40)], "l")])
    assert "longtable" in long and "tabular" not in long


def test_references_are_listed_once():
    text = format_bibtex(["he2022mae", "he2022mae", "holm1979simple"], "A data set, 2020")
    assert text.count("@inproceedings{he2022mae,") == 1 and "note = {A data set, 2020}" in text
    assert text.count("{") == text.count("}")
