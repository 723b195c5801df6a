"""Builds the document of a report: results tables, diagnostic accuracy and comparisons."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

from ..evaluation.estimation import RATES, Rate
from ..evaluation.intervals import Estimate
from ..evaluation.operating_points import THRESHOLDS
from ..settings.metrics import METRICS, MetricKind, metric_names
from .diagnostic_accuracy import OneVsRestResult, Subgroup, Subgroups
from .document import Block, BulletList, Heading, Paragraph
from .headline import HeadlineRow, estimated_scores, headline_table, make_difference
from .results_tables import ResultsRow, ResultsTable
from .run_sentences import describe_ppv_at_recall
from .table import Cell, CellLike, Column, Content, Number, Table, format_content, number_columns
from .text_templates import report_text

RATE_TITLES = {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV"}
AGGREGATION_TITLES = {
    "images": "images",
    "mean": "patients, mean of their images",
    "worst": "patients, their worst image",
}
DECISION_TITLES = {"argmax": "predicted class", "bayes": "Bayes decision"}
DECISION_CURVE_THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5)  # listed in the text


def build_report_document(results_tables: Iterable[ResultsTable], details: bool = True) -> list[Block]:
    """Builds the document of a report, with or without the details of each run (classes, patients, subgroups...)."""
    tables = list(results_tables)
    blocks: list[Block] = [Paragraph(report_text("explanation"))]
    for table in tables:
        blocks += _results_table_blocks(table, details)
    return blocks + _see_also_blocks(tables)


def _see_also_blocks(tables: list[ResultsTable]) -> list[Block]:
    """Builds a table of our rows on two splits of the same images, if a benchmark refers to another one."""
    by_data = {table.data: table for table in tables}
    blocks: list[Block] = []
    for first in tables:
        second = by_data.get(first.see_also or "")
        if second is None or first.data > second.data:
            continue  # each pair once
        rows = [
            HeadlineRow([row.method, table.title], row.scores)
            for table in (first, second)
            for row in [*table.rows, *table.not_comparable]
            if row.ours
        ]
        caption = report_text("two_splits", tables=(first, second))
        labels = [Column("method"), Column("split")]
        blocks += [Heading(f"{first.data} and {second.data}"), headline_table(labels, rows, caption=caption)]
    return blocks


def _results_table_blocks(table: ResultsTable, details: bool) -> list[Block]:
    blocks: list[Block] = [Heading(table.title), *build_score_tables(table)]
    blocks += [Paragraph(note) for note in table.notes]
    ours = [row for row in [*table.rows, *table.not_comparable] if row.ours]
    blocks += [*_probability_blocks(ours), *_cost_blocks(ours)]
    for row in ours if details else []:
        blocks += _run_blocks(row)
    return blocks + _comparison_blocks(table)


def build_score_tables(table: ResultsTable) -> list[Table]:
    """Builds the tables of the comparable rows, the best macro F1 first, and of the others; the footnotes of both are
    below the last one."""
    notes = _Footnotes()
    other = report_text("not_comparable") if table.rows else "Scores:"
    parts = [(table.rows, report_text("comparable")), (table.not_comparable, other)]
    labels, remarks = [Column("method"), Column("initialisation")], [Column("source")]
    tables = [
        headline_table(
            labels, [_make_row(row, notes) for row in rows], remarks=remarks, caption=caption, mark_best=True
        )
        for rows, caption in parts
        if rows
    ]
    return [*tables[:-1], *(replace(last, footnotes=notes.texts) for last in tables[-1:])]


def _make_row(row: ResultsRow, notes: "_Footnotes") -> HeadlineRow:
    method = Cell(row.method, bold=row.ours, footnote_marks=notes.get_marks(row.notes))
    return HeadlineRow([method, row.initialisation], row.scores, row.ranked, [row.source])


class _Footnotes:
    """Assigns letters to notes, in order of appearance."""

    def __init__(self) -> None:
        self.letter_by_note: dict[str, str] = {}

    def get_marks(self, notes: list[str]) -> str:
        for note in notes:
            self.letter_by_note.setdefault(note, _footnote_letter(len(self.letter_by_note)))
        return ", ".join(sorted(self.letter_by_note[note] for note in notes))

    @property
    def texts(self) -> dict[str, str]:
        """The notes by letter."""
        return {letter: note for note, letter in self.letter_by_note.items()}


def _footnote_letter(number: int) -> str:
    return (_footnote_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)


# Diagnostic accuracy


def _probability_blocks(rows: list[ResultsRow]) -> list[Block]:
    runs = [
        (row.method, row.diagnostic_accuracy.probabilities)
        for row in rows
        if row.diagnostic_accuracy and row.diagnostic_accuracy.probabilities
    ]
    if not runs:
        return []
    names = metric_names(MetricKind.PROBABILITY)
    cells = [[method, *(_make_probability(values.get(name)) for name in names)] for method, values in runs]
    return [
        Table(
            [Column("method"), *number_columns([METRICS[name].title for name in names])],
            cells,
            report_text("probabilities"),
        )
    ]


def _make_probability(estimate: Estimate | None) -> Content:
    return "undefined" if estimate is None else Number(estimate.value, 3, interval=estimate.interval)


def _cost_blocks(rows: list[ResultsRow]) -> list[Block]:
    cells = [
        [row.method, DECISION_TITLES[cost.decisions], *map(_make_probability, (cost.expected_cost, cost.normalized))]
        for row in rows
        for cost in (row.diagnostic_accuracy.expected_costs if row.diagnostic_accuracy else [])
    ]
    columns = [Column("method"), Column("decisions"), *number_columns(["expected cost", "normalised"])]
    return [Table(columns, cells, report_text("expected_costs"))] if cells else []


def make_rate(rate: Rate | Estimate | None) -> Content:
    """Makes the displayed rate, in per cent."""
    if rate is None:
        return "none"
    ends = None if rate.interval is None else (100 * rate.interval[0], 100 * rate.interval[1])
    return Number(100 * rate.value, 1, interval=ends, reason=rate.reason or "")


def _run_blocks(row: ResultsRow) -> list[Block]:
    """Builds the details of a run: classes, patients, operating points, subgroups."""
    blocks: list[Block] = [_class_rates_table(row)] if row.by_class else []
    results = row.diagnostic_accuracy
    if results is None:
        return blocks
    if results.patients:
        blocks.append(_patient_table(row.method, results.patients))
    for result in results.one_vs_rest:
        blocks += _one_vs_rest_blocks(row.method, result)
    blocks += [_subgroup_table(row.method, subgroups) for subgroups in results.subgroups]
    return blocks + ([BulletList(results.notes)] if results.notes else [])


def _class_rates_table(row: ResultsRow) -> Table:
    rows = [
        [label, *(make_rate(rates[name]) if name in rates else "no image" for name in RATES)]
        for label, rates in row.by_class.items()
    ]
    return Table(
        [Column("class"), *number_columns(list(RATE_TITLES.values()))],
        rows,
        report_text("class_rates", method=row.method),
    )


def _patient_table(method: str, patients: dict[str, dict[str, Estimate]]) -> Table:
    rows = [HeadlineRow([AGGREGATION_TITLES[name]], estimated_scores(scores)) for name, scores in patients.items()]
    return headline_table([Column("score of")], rows, caption=report_text("patients", method=method))


def _one_vs_rest_blocks(method: str, result: OneVsRestResult) -> list[Block]:
    aurocs = [
        f"{format_content(_make_probability(auroc))} ({AGGREGATION_TITLES[name]})"
        for name, auroc in result.auroc.items()
    ]
    average_precision = format_content(_make_probability(result.average_precision))
    caption = report_text(
        "one_vs_rest", method=method, result=result, aurocs=aurocs, average_precision=average_precision
    )
    rows = []
    for point in result.operating_points:
        thresholds = ", ".join(f"{value:.4g}" for value in point.thresholds[:3])
        thresholds += ", ..." if len(point.thresholds) > 3 else ""
        split_rates = "; ".join(f"{name} {100 * value:.1f}" for name, value in point.threshold_split_rates.items())
        threshold_split = f"{point.threshold_split} ({split_rates})" if point.threshold_split else ""
        rates = [make_rate(point.rates.get(name)) for name in RATES]
        rows.append([point.rule, AGGREGATION_TITLES[point.aggregation], thresholds, threshold_split, *rates])
    ppv = [
        Paragraph(f"Score of {AGGREGATION_TITLES[name]}: {describe_ppv_at_recall(values)}")
        for name, found in result.ppv_at_recall.items()
        for values in [asdict(found) | {"classes": result.classes}]
    ]
    agreement = [f"{name} {format_content(make_rate(value))}" for name, value in result.agreement.items()]
    indices = [round(threshold * (len(THRESHOLDS) + 1)) - 1 for threshold in DECISION_CURVE_THRESHOLDS]
    curve = result.decision_curve
    net_benefit = [(curve.thresholds[index], curve.net_benefit[index], curve.treat_all[index]) for index in indices]
    columns = [Column(title) for title in ("operating point", "score of", "threshold", "chosen on")]
    return [
        Table([*columns, *number_columns(list(RATE_TITLES.values()))], rows, caption),
        *ppv,
        Paragraph(report_text("agreement", values=agreement)),
        Paragraph(report_text("net_benefit", values=net_benefit)),
    ]


def _subgroup_table(method: str, subgroups: Subgroups) -> Table:
    caption = report_text("subgroups", method=method, subgroups=subgroups, METRICS=METRICS)
    labels = [Column(subgroups.column), Column("images", "r"), Column("patients")]
    return headline_table(labels, [_make_subgroup_row(level) for level in subgroups.levels], caption=caption)


def _make_subgroup_row(level: Subgroup) -> HeadlineRow:
    count = f"{level.count} patients or videos" if level.units == "groups" else ""
    return HeadlineRow([level.value, level.images, count], estimated_scores(level.scores or {}), missing="too few")


# Comparisons

COMPARISON_COLUMNS = [
    *(Column(title) for title in ("first", "second", "score")),
    *number_columns(["difference", "p", "p adjusted"]),
    Column("test"),
]


def _comparison_blocks(table: ResultsTable) -> list[Block]:
    blocks: list[Block] = []
    if table.comparisons:
        rows = [_comparison_cells(comparison) for comparison in table.comparisons]
        units = {comparison["units"] for comparison in table.comparisons}
        blocks.append(Table(COMPARISON_COLUMNS, rows, report_text("comparisons", units=units)))
    different = [pair for pair in table.differences if "different" in pair]
    return blocks + [Paragraph(report_text("not_compared", pair=pair)) for pair in different]


def _comparison_cells(comparison: dict[str, Any]) -> list[CellLike]:
    test = comparison["test"]
    if resampled := comparison.get("corrected_resampled"):
        test += f"; over folds, corrected: p {resampled['p_value']:.3g}"
    p_values = [f"{comparison[name]:.3g}" for name in ("p_value", "p_adjusted")]
    title = _comparison_title(comparison)
    return [comparison["first"], comparison["second"], title, make_difference(comparison), *p_values, test]


def _comparison_title(comparison: dict[str, Any]) -> str:
    if "decisions" in comparison:
        return f"normalised expected cost, {DECISION_TITLES[comparison['decisions']]}"
    task = f", {' or '.join(comparison['positive'])} against the rest" if "positive" in comparison else ""
    return METRICS[comparison["score"]].title + task


def build_report_summary(results_tables: Iterable[ResultsTable]) -> list[Block]:
    """Builds the summary of a report for a terminal: the scores and comparisons, without details."""
    blocks: list[Block] = []
    for table in results_tables:
        rows = [HeadlineRow([row.method], row.scores) for row in [*table.rows, *table.not_comparable]]
        blocks += [Heading(table.title), headline_table([Column("")], rows).transpose()]
        for comparison in table.comparisons:
            difference = make_difference(comparison).format()
            pair = f"{comparison['second']} minus {comparison['first']}"
            p_value = f"p {comparison['p_adjusted']:.3g} (adjusted)"
            blocks.append(Paragraph(f"{_comparison_title(comparison)}, {pair}: {difference}, {p_value}"))
    return blocks
