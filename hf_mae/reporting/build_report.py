"""Builds the document of a report: results tables, diagnostic accuracy and comparisons."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

from ..evaluation.agreement import PairAgreement
from ..evaluation.differences import BINARY_SCORES
from ..evaluation.estimation import RATES, Rate
from ..evaluation.intervals import Estimate
from ..evaluation.operating_points import THRESHOLDS, DecisionCurve
from ..evaluation.recalibration import Recalibration
from ..settings.metrics import METRICS, MetricKind, metric_names
from .centres import centre_table
from .diagnostic_accuracy import PREDICTED_CLASS_RULE, OneVsRestResult, OperatingPoint, Subgroup, Subgroups
from .document import Block, BulletList, Heading, Paragraph
from .headline import (
    RATE_TITLES,
    HeadlineRow,
    estimated_scores,
    headline_table,
    make_difference,
    make_score,
    score_title,
)
from .results_tables import ResultsRow, ResultsTable
from .run_sentences import describe_ppv_at_recall
from .table import Cell, CellLike, Column, Content, Number, Table, format_content, number_columns
from .text_templates import report_text

AGGREGATION_TITLES = {
    "images": "images",
    "mean": "patients, mean of their images",
    "worst": "patients, their worst image",
}
DECISION_TITLES = {"argmax": "predicted class", "bayes": "Bayes decision"}
MAX_PAIRS_WITH_RATES = 6  # pairs of runs whose differences by class are in the text
MARGIN_RESULTS = {
    "non_inferiority": ("non-inferior", "non-inferiority not shown"),
    "equivalence": ("equivalent", "equivalence not shown"),
}
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
    blocks += _agreement_blocks(table, ours)
    for row in ours if details else []:
        blocks += _run_blocks(row)
    return blocks + _comparison_blocks(table) + (_rate_comparison_blocks(table) if details else [])


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


def _agreement_blocks(table: ResultsTable, rows: list[ResultsRow]) -> list[Block]:
    """Builds the agreement of the annotators and models; annotators of the same images are listed once."""
    found = [row.diagnostic_accuracy.annotator_agreement for row in rows if row.diagnostic_accuracy]
    agreements = [one for one in [*found, table.agreement] if one is not None]
    blocks: list[Block] = []
    for agreement in {str(one.annotators): one.annotators for one in agreements}.values():
        models = [pair for one in agreements if one.annotators == agreement for pair in one.model]
        values = [agreement.alpha, agreement.ordinal_alpha, agreement.fleiss_kappa]
        titles = ["Krippendorff's alpha", "alpha of grades", "Fleiss' kappa"]
        shown = [index for index in range(3) if index != 1 or agreement.ordinal_alpha]
        cells = [agreement.images, make_rate(agreement.agreement), *(_make_probability(values[i]) for i in shown)]
        columns = number_columns(["images", "agreement", *(titles[index] for index in shown)])
        blocks.append(Table(columns, [cells], report_text("agreement_of_annotators", agreement=agreement)))
        blocks.append(_pair_table([*models, *agreement.pairs]))
    return blocks


def _pair_table(pairs: list[PairAgreement]) -> Table:
    ordered = any(pair.qwk for pair in pairs)
    rows = [
        [
            *(pair.first, pair.second, pair.images, make_rate(pair.agreement), _make_probability(pair.kappa)),
            *([_make_probability(pair.qwk)] if ordered else []),
        ]
        for pair in pairs
    ]
    titles = ["images", "agreement", "Cohen's kappa", *(["QWK"] if ordered else [])]
    return Table([Column("first"), Column("second"), *number_columns(titles)], rows, report_text("agreement_of_pairs"))


def make_rate(rate: Rate | Estimate) -> Number:
    """Makes the displayed rate, in per cent."""
    ends = None if rate.interval is None else (100 * rate.interval[0], 100 * rate.interval[1])
    return Number(100 * rate.value, 1, interval=ends, reason=rate.reason or "")


def _run_blocks(row: ResultsRow) -> list[Block]:
    """Builds the details of a run: classes, patients, operating points, subgroups."""
    blocks: list[Block] = [_class_rates_table(row)] if row.by_class else []
    results = row.diagnostic_accuracy
    if results is None:
        return blocks
    if results.centres is not None:
        blocks.append(centre_table(results.centres))
    if results.calibration:
        blocks.append(_calibration_table(row.method, results.calibration))
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


def _calibration_table(method: str, calibration: dict[str, Recalibration | None]) -> Table:
    rows = [
        [title, *(_make_probability(estimate) for estimate in ((fit.intercept, fit.slope) if fit else (None, None)))]
        for title, fit in calibration.items()
    ]
    columns = [Column("class"), *number_columns(["intercept", "slope"])]
    return Table(columns, rows, report_text("calibration", method=method))


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
        thresholds = ", ".join(_format_thresholds(point)[:3])
        thresholds += ", ..." if len(point.thresholds) > 3 else ""
        split_rates = "; ".join(f"{name} {100 * value:.1f}" for name, value in point.threshold_split_rates.items())
        threshold_split = f"{point.threshold_split} ({split_rates})" if point.threshold_split else ""
        rates = [make_rate(point.rates[name]) if name in point.rates else "none" for name in RATES]
        rows.append([point.rule, AGGREGATION_TITLES[point.aggregation], thresholds, threshold_split, *rates])
    ppv = [
        Paragraph(f"Score of {AGGREGATION_TITLES[name]}: {describe_ppv_at_recall(values)}")
        for name, found in result.ppv_at_recall.items()
        for values in [asdict(found) | {"classes": result.classes}]
    ]
    agreement = [f"{name} {format_content(make_rate(value))}" for name, value in result.agreement.items()]
    indices = _decision_curve_indices()
    curve = result.decision_curve
    net_benefit = [(curve.thresholds[index], *_benefits(curve, index)) for index in indices]
    columns = [Column(title) for title in ("operating point", "score of", "threshold", "chosen on")]
    choices = [_format_choice(point) for point in result.operating_points if point.sensitivity_with_choice]
    return [
        Table([*columns, *number_columns(list(RATE_TITLES.values()))], rows, caption),
        *([Paragraph(report_text("with_choice", values=choices))] if choices else []),
        *ppv,
        Paragraph(report_text("agreement", values=agreement)),
        Paragraph(report_text("net_benefit", values=net_benefit)),
    ]


def _format_thresholds(point: OperatingPoint) -> list[str]:
    """Formats the thresholds with their intervals, if they have them."""
    intervals = point.threshold_intervals or [None] * len(point.thresholds)
    ranges = (f" [{ends[0]:.4g}, {ends[1]:.4g}]" if ends else "" for ends in intervals)
    return [f"{value:.4g}{ends}" for value, ends in zip(point.thresholds, ranges)]


def _format_choice(point: OperatingPoint) -> str:
    """Formats the rates with the intervals that include the choice of the threshold."""
    ends = {"sensitivity": point.sensitivity_with_choice, "specificity": point.specificity_with_choice}
    rates = [
        f"{name} {format_content(make_rate(replace(point.rates[name], interval=interval)))}"
        for name, interval in ends.items()
        if interval
    ]
    return f"{point.rule} ({AGGREGATION_TITLES[point.aggregation]}): {', '.join(rates)}"


def _benefits(curve: DecisionCurve, index: int) -> tuple[str, str, str]:
    """Formats the net benefit at a threshold, that of treating all, and the difference."""
    gain = curve.net_benefit[index] - curve.treat_all[index]
    return (
        Number(curve.net_benefit[index], 3, interval=curve.intervals[index]).format(),
        Number(curve.treat_all[index], 3).format(),
        Number(gain, 3, interval=curve.gain_intervals[index], signed=True).format(),
    )


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
    if table.margin_tests:
        blocks.append(_margin_table(table.margin_tests))
    different = [pair for pair in table.differences if "different" in pair]
    return blocks + [Paragraph(report_text("not_compared", pair=pair)) for pair in different]


def _margin_table(tests: list[dict[str, Any]]) -> Table:
    rows = []
    for test in tests:
        p_values = ["" if test[name] is None else f"{test[name]:.3g}" for name in ("p_value", "p_adjusted")]
        margin = _make_difference(test["score"], test["margin"], None).format().lstrip("+")
        texts = MARGIN_RESULTS[test["kind"]]
        result = texts[0] if test["shown"] else texts[1]
        difference = _make_difference(test["score"], test["difference"], _ends(test), test["reason"])
        rows.append([test["second"], score_title(test["score"]), margin, difference, *p_values, result])
    columns = [Column("run"), Column("score"), *number_columns(["margin", "difference", "p", "p adjusted"])]
    return Table([*columns, Column("result")], rows, report_text("margins", first=tests[0]["first"]))


def _rate_comparison_blocks(table: ResultsTable) -> list[Block]:
    """Builds the differences of the rates of each pair of runs, if there are few; all are in `report.json`."""
    by_pair: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for comparison in table.rate_comparisons:
        by_pair.setdefault((comparison["first"], comparison["second"]), []).append(comparison)
    if len(by_pair) > MAX_PAIRS_WITH_RATES:
        return []
    blocks: list[Block] = []
    columns = [Column("classes"), Column("operating point"), Column("prevalence", "r")]
    for (first, second), comparisons in by_pair.items():
        rows = [_rate_comparison_cells(comparison) for comparison in comparisons]
        caption = report_text("rate_comparisons", first=first, second=second)
        blocks.append(Table([*columns, *number_columns([*RATE_TITLES.values(), "F1"])], rows, caption))
        for comparison in comparisons:
            if benefit := comparison["net_benefit"]:
                values = [
                    (benefit["thresholds"][index], _make_benefit_difference(benefit, index).format())
                    for index in _decision_curve_indices()
                ]
                classes = " or ".join(comparison["classes"])
                facts = {"first": first, "second": second, "classes": classes, "values": values}
                blocks.append(Paragraph(report_text("benefit_difference", **facts)))
    return blocks


def _rate_comparison_cells(comparison: dict[str, Any]) -> list[CellLike]:
    prevalence, scores = comparison["prevalence"], comparison["scores"]
    cells: list[CellLike] = [" or ".join(comparison["classes"]), comparison["rule"] or PREDICTED_CLASS_RULE]
    cells.append("" if prevalence is None else f"{100 * prevalence:.3g} %")
    for name in BINARY_SCORES:
        found = scores.get(name)
        cells.append(_make_difference(name, found["difference"], _ends(found), found["reason"]) if found else "none")
    return cells


def _decision_curve_indices() -> list[int]:
    return [round(threshold * (len(THRESHOLDS) + 1)) - 1 for threshold in DECISION_CURVE_THRESHOLDS]


def _make_benefit_difference(benefit: dict[str, Any], index: int) -> Number:
    ends = benefit["low"][index], benefit["high"][index]
    return Number(benefit["difference"][index], 3, interval=None if None in ends else ends, signed=True)


def _ends(comparison: dict[str, Any]) -> tuple[float, float] | None:
    low, high = comparison["low"], comparison["high"]
    return None if low is None or high is None else (low, high)


def _make_difference(
    name: str, value: float, interval: tuple[float, float] | None, reason: str | None = None
) -> Number:
    """Makes the displayed difference of a score, or of a rate of classes (in per cent)."""
    if name in METRICS:
        return replace(make_score(name, value, interval, reason=reason or ""), signed=True)
    return replace(make_rate(Estimate(value, interval)), reason=reason or "", signed=True)


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
        ours = [row for row in [*table.rows, *table.not_comparable] if row.ours]
        scores = [headline_table([Column("")], rows).transpose()] if rows else []
        blocks += [Heading(table.title), *scores, *_cost_blocks(ours), *_agreement_blocks(table, ours)]
        for comparison in table.comparisons:
            difference = make_difference(comparison).format()
            pair = f"{comparison['second']} minus {comparison['first']}"
            p_value = f"p {comparison['p_adjusted']:.3g} (adjusted)"
            blocks.append(Paragraph(f"{_comparison_title(comparison)}, {pair}: {difference}, {p_value}"))
        blocks += [_margin_table(table.margin_tests)] if table.margin_tests else []
    return blocks
