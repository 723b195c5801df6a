"""Tables of a report as Markdown and LaTeX."""

import re
from typing import Any

from ..evaluation.metrics import HEADLINE, TITLES
from .tables import EXPLANATION, Row, Table


def _number(score: dict[str, Any] | None, plus_minus: str) -> str:
    if score is None:
        return ""
    if "printed" in score:  # with the decimals of the source
        return score["printed"].replace("±", plus_minus)
    std = "" if score["std"] is None else f"{plus_minus}{score['std']:.2f}"
    interval = "" if score["interval"] is None else " [{:.1f}, {:.1f}]".format(*score["interval"])
    return f"{score['mean']:.2f}{std}{interval}"


def _best(rows: list[Row]) -> dict[str, float]:
    ranked = [row for row in rows if row.ranked]
    return {
        name: max((row.scores[name]["mean"] for row in ranked if name in row.scores), default=float("inf"))
        for name in HEADLINE
    }


class _Footnotes:
    """Letters for notes, in the order in which they come."""

    def __init__(self):
        self.letters: dict[str, str] = {}

    def marks(self, notes: list[str]) -> str:
        for note in notes:
            self.letters.setdefault(note, chr(ord("a") + len(self.letters)))
        return ", ".join(sorted(self.letters[note] for note in notes))


def markdown(found: list[Table]) -> str:
    """The report as Markdown."""
    parts = [EXPLANATION]
    for table in found:
        notes = _Footnotes()
        parts.append(f"## {table.title}")
        if table.rows:
            parts.append(_markdown_table(table.rows, notes))
        if table.apart:
            heading = "Not comparable with the rows above (another split, other averages, or in doubt):"
            parts.append((f"{heading}\n\n" if table.rows else "") + _markdown_table(table.apart, notes))
        parts.append("\n".join(f"- ({letter}) {note}" for note, letter in notes.letters.items()))
        parts += table.notes
        parts += [_markdown_classes(row) for row in [*table.rows, *table.apart] if row.by_class]
        parts.append(_markdown_comparisons(table))
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown_table(rows: list[Row], notes: _Footnotes) -> str:
    best = _best(rows)
    lines = ["| method | initialisation | " + " | ".join(TITLES[name] for name in HEADLINE) + " | source |"]
    lines.append("|---|---|" + "---:|" * len(HEADLINE) + "---|")
    for row in rows:
        marks = notes.marks(row.notes)
        cells = []
        for name in HEADLINE:
            text = _number(row.scores.get(name), " ± ")
            cells.append(f"**{text}**" if text and row.scores[name]["mean"] == best[name] else text)
        method = f"**{cell(row.method)}**" if row.ours else cell(row.method)
        method += f" ({marks})" if marks else ""
        lines.append(f"| {method} | {cell(row.initialisation)} | " + " | ".join(cells) + f" | {cell(row.source)} |")
    return "\n".join(lines)


def cell(text: str) -> str:
    """Text for a cell of a Markdown table: one line, whose bars end no cell, and without a tag that is alive."""
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")


RATES = {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV"}


def _markdown_classes(row: Row) -> str:
    """Each class of a run against the rest."""
    lines = [
        f"Each class of {cell(row.method)} against the rest, in per cent (PPV and NPV at these images' prevalence):",
        "",
        "| class | " + " | ".join(RATES.values()) + " |",
        "|---|" + "---:|" * len(RATES),
    ]
    for label, rates in row.by_class.items():
        lines.append(f"| {cell(label)} | " + " | ".join(_rate(rates.get(name)) for name in RATES) + " |")
    return "\n".join(lines)


def _rate(rate: dict[str, Any] | None) -> str:
    if rate is None:
        return "no image"
    reach = "too few for an interval" if rate["interval"] is None else "{:.1f} to {:.1f}".format(*rate["interval"])
    return f"{rate['mean']:.1f} [{reach}]"


HEADS = ("first", "second", "score", "difference", "p", "p adjusted", "test")


def _compared(table: Table) -> list[list[str]]:
    """Cells of the comparisons of a table, in per cent."""
    rows = []
    for entry in table.comparisons:
        reach = "" if entry["low"] is None else f" [{100 * entry['low']:+.1f}, {100 * entry['high']:+.1f}]"
        test = entry["test"]
        if folds := entry.get("corrected_resampled"):
            test += f"; over folds, corrected: p {folds['p_value']:.3g}"
        difference = f"{100 * entry['difference']:+.2f}{reach}"
        p_values = [f"{entry[name]:.3g}" for name in ("p_value", "p_adjusted")]
        rows.append([entry["first"], entry["second"], TITLES[entry["score"]], difference, *p_values, test])
    return rows


UNITS = {
    "groups": "Patients or videos are left out and exchanged as wholes.",
    "images": "No patients or videos are known: images are taken for independent.",
}


def _about(table: Table) -> str:
    """What is to be known of the comparisons of a table."""
    units = " ".join(UNITS[name] for name in sorted({entry["units"] for entry in table.comparisons}))
    return (
        "Differences between our runs on the same images, second minus first, with 95 % intervals (jackknife) and "
        f"tests of no difference. {units} p adjusted: for all comparisons of this table (Holm)."
    )


def _markdown_comparisons(table: Table) -> str:
    parts = []
    if table.comparisons:
        lines = [_about(table), "", f"| {' | '.join(HEADS)} |", "|---|---|---|---:|---:|---:|---|"]
        lines += [f"| {' | '.join(map(cell, row))} |" for row in _compared(table)]
        parts.append("\n".join(lines))
    apart = [pair for pair in table.differences if "note" in pair]
    parts += [f"{cell(pair['first'])} and {cell(pair['second'])} are {pair['note']}." for pair in apart]
    return "\n\n".join(parts)


def latex(found: list[Table]) -> str:
    r"""The report as LaTeX tables (they need \usepackage{booktabs})."""
    parts = []
    for table in found:
        notes = _Footnotes()
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(table.title)}. {_tex(EXPLANATION)}}}",
            rf"\begin{{tabular}}{{ll{'r' * len(HEADLINE)}l}}",
            r"\toprule",
            " & ".join(["method", "initialisation", *(TITLES[name] for name in HEADLINE), "source"]) + r" \\",
            r"\midrule",
        ]
        lines += _latex_rows(table.rows, notes)
        if table.apart:
            heading = "not comparable (another split, other averages, or in doubt)"
            span = len(HEADLINE) + 3
            lines += [r"\midrule", rf"\multicolumn{{{span}}}{{l}}{{\emph{{{heading}}}}} \\"] if table.rows else []
            lines += _latex_rows(table.apart, notes)
        lines += [r"\bottomrule", r"\end{tabular}"]
        if notes.letters:
            text = " ".join(rf"$^{{{letter}}}$ {_tex(note)}" for note, letter in notes.letters.items())
            lines.append(rf"\par\footnotesize {text}")
        lines += [rf"\par\footnotesize {_tex(note)}" for note in table.notes]
        parts.append("\n".join([*lines, r"\end{table}"]))
        if table.comparisons:
            parts.append(_latex_comparisons(table))
    return "% \\usepackage{booktabs}\n" + "\n\n".join(parts) + "\n"


def _latex_comparisons(table: Table) -> str:
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(table.title)}. {_tex(_about(table))}}}",
        r"\begin{tabular}{lllrrrl}",
        r"\toprule",
        " & ".join(HEADS) + r" \\",
        r"\midrule",
        *(" & ".join(map(_tex, row)) + r" \\" for row in _compared(table)),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _latex_rows(rows: list[Row], notes: _Footnotes) -> list[str]:
    best, lines = _best(rows), []
    for row in rows:
        marks = notes.marks(row.notes)
        cells = []
        for name in HEADLINE:
            text = _number(row.scores.get(name), r" $\pm$ ")
            cells.append(rf"\textbf{{{text}}}" if text and row.scores[name]["mean"] == best[name] else text)
        method = rf"\textbf{{{_tex(row.method)}}}" if row.ours else _tex(row.method)
        method += rf"$^{{\mathrm{{{marks}}}}}$" if marks else ""
        lines.append(" & ".join([method, _tex(row.initialisation), *cells, _tex(row.source)]) + r" \\")
    return lines


_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}


def _tex(text: str) -> str:
    return re.sub(r"[\\~^±&%$#_{}]", lambda match: _TEX.get(match[0], "\\" + match[0]), text)
