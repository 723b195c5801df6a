"""`hf-mae report`: runs beside the published rows, as Markdown, LaTeX and JSON, with intervals and tests."""

import csv
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from . import figures
from .cli import Parser
from .data.benchmarks import BENCHMARKS
from .errors import UsageError
from .finished import CHOSEN_ON_EVALUATED, FinishedRun, read_run
from .metrics import HEADLINE, TITLES
from .results import write_json
from .runs import set_up_logging
from .statistics import mcnemar, paired_bootstrap

logger = logging.getLogger(__name__)

PUBLISHED = Path(__file__).parent / "published" / "results.csv"
EXPLANATION = (
    "In per cent. ± is the standard deviation over runs, [ ] the 95 % bootstrap interval (stratified by class, 2,000 "
    "resamples; whole patients or videos where they are known). Bold: our runs, and the best of each column."
)


@dataclass
class Row:
    """A method's line in a table: scores in per cent."""

    method: str
    initialisation: str
    source: str
    ours: bool
    ranked: bool
    scores: dict[str, dict[str, Any]]  # `mean`, `std` and `interval`, in per cent; a score not published is absent
    notes: list[str] = field(default_factory=list)


@dataclass
class Table:
    """What may be compared with each other (`rows`, best macro F1 first), and what may not (`apart`)."""

    title: str
    rows: list[Row]
    apart: list[Row]
    differences: list[dict[str, Any]]


def published_rows(benchmark: str) -> list[dict[str, str]]:
    """The published rows of a benchmark, and those of its data set that do not say of which classes."""
    with open(PUBLISHED, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if row["benchmark"] in (benchmark, benchmark.rsplit("-", 1)[0])]


def _published(row: dict[str, str], protocol: str) -> Row:
    scores = {}
    for name in HEADLINE:
        if row[name]:
            mean, _, std = row[name].partition("±")
            scores[name] = {"mean": float(mean), "std": float(std) if std else None, "interval": None}
            scores[name]["printed"] = row[name]
    notes = [f"{row['note'][0].upper()}{row['note'][1:]}."] if row["note"] else []
    if row["protocol"] != protocol and not row["note"]:
        notes.append(f"Split: {row['protocol']}.")
    if row["chosen_on_evaluated"] == "yes":
        notes.append(CHOSEN_ON_EVALUATED)
    ranked = row["ranked"] == "yes" and row["protocol"] == protocol
    return Row(row["method"], row["initialisation"], row["source"], False, ranked, scores, notes)


def _ours(run: FinishedRun, ranked: bool) -> Row:
    scores = {}
    for name, values in run.scores().items():
        std = None if values["std"] is None else 100 * values["std"]
        scores[name] = {"mean": 100 * values["mean"], "std": std, "interval": [100 * v for v in values["interval"]]}
    notes = run.notes + ([CHOSEN_ON_EVALUATED] if run.chosen_on_evaluated else [])
    return Row(run.name, run.initialisation, "this run", True, ranked, scores, notes)


def tables(runs: list[FinishedRun], benchmark: str | None = None) -> list[Table]:
    """One table for each data set, split and protocol among the runs, with the published rows of it.

    Args:
        benchmark: also one of its official split, where no run has it.
    """
    wanted: dict[tuple[str, str, str | None], list[FinishedRun]] = {}
    for run in runs:
        wanted.setdefault((run.data, run.split, run.protocol), []).append(run)
    if benchmark and not any(data == benchmark for data, _, _ in wanted):
        wanted[(benchmark, "", "official")] = []
    result = []
    for (data, split, protocol), chosen in wanted.items():
        published = [_published(row, protocol or "official") for row in published_rows(data)]
        ours = [_ours(run, protocol is not None or not published) for run in chosen]
        rows = [row for row in [*ours, *published] if row.ranked]
        title = f"{data}: {protocol} split" if protocol else f"{data}: {split}"
        if data in BENCHMARKS:
            title = f"{BENCHMARKS[data].title} ({protocol or 'official'})"
        rows.sort(key=lambda row: -row.scores.get("macro_f1", {"mean": 0.0})["mean"])
        apart = [row for row in [*ours, *published] if not row.ranked]
        result.append(Table(title, rows, apart, list(differences(chosen))))
    return result


def differences(runs: list[FinishedRun]) -> Iterable[dict[str, Any]]:
    """Paired tests between every two runs on the same images; a note where they are not the same."""
    for first, second in combinations(runs, 2):
        pair = {"first": first.name, "second": second.name}
        if first.file_names != second.file_names or first.names != second.names:
            yield pair | {"note": "not evaluated on the same images, so not compared"}
            continue
        labels = np.concatenate([fold.labels for fold in first.folds])
        # One prediction an image: of each fold's first seed.
        one, two = (np.concatenate([fold.predicted[0] for fold in run.folds]) for run in (first, second))
        yield pair | {
            "images": len(labels),
            "scores": paired_bootstrap(first.folds, second.folds),
            "mcnemar": mcnemar(labels, one, two),
        }


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
        if table.differences:
            parts.append(_markdown_differences(table.differences))
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
        method = f"**{_plain(row.method)}**" if row.ours else _plain(row.method)
        method += f" ({marks})" if marks else ""
        lines.append(f"| {method} | {_plain(row.initialisation)} | " + " | ".join(cells) + f" | {_plain(row.source)} |")
    return "\n".join(lines)


def _plain(text: str) -> str:
    return text.replace("|", r"\|")


def _markdown_differences(found: list[dict[str, Any]]) -> str:
    lines = [
        "Differences between our runs on the same images, second minus first (paired bootstrap; McNemar's exact test):",
        "",
        "| first | second | macro F1 | p | accuracy | p | only first right | only second right | McNemar's p |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for pair in found:
        names = f"| {_plain(pair['first'])} | {_plain(pair['second'])} |"
        if "note" in pair:
            lines.append(f"{names} {pair['note']} |" + " |" * 6)
            continue
        cells = []
        for name in ("macro_f1", "accuracy"):
            score = pair["scores"][name]
            low, high = 100 * score["low"], 100 * score["high"]
            cells += [f"{100 * score['difference']:+.2f} [{low:+.1f}, {high:+.1f}]", f"{score['p_value']:.3g}"]
        test = pair["mcnemar"]
        cells += [str(test["only_first"]), str(test["only_second"]), f"{test['p_value']:.3g}"]
        lines.append(f"{names} " + " | ".join(cells) + " |")
    return "\n".join(lines)


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
        parts.append("\n".join([*lines, r"\end{table}"]))
    return "% \\usepackage{booktabs}\n" + "\n\n".join(parts) + "\n"


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


def as_json(found: list[Table]) -> dict[str, Any]:
    def row(entry: Row) -> dict[str, Any]:
        return {key: getattr(entry, key) for key in ("method", "initialisation", "source", "ours", "ranked")} | {
            "scores": entry.scores,
            "notes": entry.notes,
        }

    return {
        "explanation": EXPLANATION,
        "tables": [
            {
                "title": table.title,
                "rows": [row(entry) for entry in table.rows],
                "not_comparable": [row(entry) for entry in table.apart],
                "differences": table.differences,
            }
            for table in found
        ],
    }


def write_report(paths: list[str | Path], folder: Path, benchmark: str | None = None, split: str | None = None) -> str:
    """Writes `report.md`, `report.tex` and `report.json` (and a label-efficiency figure); returns the Markdown.

    Args:
        paths: folders of finished runs.
        folder: where the report goes.
        benchmark: whose published rows to show even where no run is of it.
        split: to report; None: test where a run has it, else validation.

    Raises:
        UsageError: a folder holds no finished run.
    """
    runs = [read_run(path, split) for path in paths]
    for run in runs:  # several folders of one name are told apart by their parents
        if sum(other.name == run.name for other in runs) > 1:
            run.name = str(run.folder)
    found = tables(runs, benchmark)
    text = markdown(found)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(text, encoding="utf-8")
    (folder / "report.tex").write_text(latex(found), encoding="utf-8")
    write_json(folder / "report.json", as_json(found))
    curves = {run.name: run.label_efficiency for run in runs if run.label_efficiency}
    if curves:
        figures.label_efficiency(curves, folder / "label_efficiency")
    return text


def main(argv: list[str]) -> int:
    parser = Parser("report", "Runs beside the published rows: report.md, report.tex and report.json.")
    parser.add_argument("runs", nargs="*", metavar="RUN", help="output folders of finetune, crossval and evaluate")
    known = sorted({*BENCHMARKS, "imagenet-1k"})
    parser.flag("benchmark", choices=known, help="show its published rows, also without a run")
    parser.flag("split", choices=["validation", "test", "selection"], help="not given: test where a run has it")
    parser.flag("output_dir", help="where the report goes; not given: the run's folder, or ./report for several")
    options = parser.parse_args(argv)
    if not options.runs and not options.benchmark:
        raise UsageError("pass the folders of finished runs, or --benchmark for the published rows alone.")
    set_up_logging(True)
    folder = Path(options.output_dir or (options.runs[0] if len(options.runs) == 1 else "report"))
    print(write_report(options.runs, folder, options.benchmark, options.split), end="")
    print(f"\nWritten to {folder}: report.md, report.tex, report.json")
    return 0
