"""Builds the document of a report: results tables, diagnostic accuracy and comparisons."""

from collections.abc import Iterable
from typing import Any

from ..evaluation.intervals import RATES, Estimate, Rate
from ..evaluation.metrics import display_scale, headline_metric_names
from ..evaluation.operating_points import THRESHOLDS
from ..settings.metrics import METRICS, MetricKind, metric_names
from .diagnostic_accuracy import OneVsRestResult, Subgroups
from .render import Block, BulletList, Cell, Heading, Paragraph, TableBlock
from .results_tables import EXPLANATION, ResultsRow, ResultsTable

RATE_TITLES = {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV"}
AGGREGATION_TITLES = {
    "images": "images",
    "mean": "patients, mean of their images",
    "worst": "patients, their worst image",
}
TOO_FEW_FOR_INTERVAL = "too few for an interval"
CLUSTER_NOTES = {
    "groups": "Complete patients or videos are left out (jackknife) and exchanged (permutation test).",
    "images": "No patients or videos are known; images are treated as independent.",
}
DECISION_CURVE_THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5)  # listed in the text


def build_report_document(results_tables: Iterable[ResultsTable], details: bool = True) -> list[Block]:
    """Builds the document of a report.

    Args:
        results_tables: the tables.
        details: include the details of each run: classes, patients, operating points, subgroups.
    """
    tables = list(results_tables)
    blocks: list[Block] = [Paragraph(EXPLANATION)]
    for table in tables:
        blocks += _results_table_blocks(table, details)
    return blocks + _see_also_blocks(tables)


def _see_also_blocks(tables: list[ResultsTable]) -> list[Block]:
    """Builds a table of our rows on two splits of the same images, if a benchmark refers to another one."""
    by_data = {table.data: table for table in tables}
    pairs = [(table, by_data[table.see_also]) for table in tables if table.see_also in by_data]
    names = headline_metric_names(ordered=False)
    blocks: list[Block] = []
    for first, second in pairs:
        if first.data > second.data:
            continue  # each pair once
        rows: list[list[Cell | str]] = []
        for table in (first, second):
            for row in [*table.rows, *table.not_comparable]:
                if row.ours:
                    rows.append(
                        [row.method, table.title, *(format_score(row.scores.get(name), name) for name in names)]
                    )
        notes = " ".join(f"{table.title}: {' '.join(table.notes)}" for table in (first, second))
        header = ["method", "split", *(METRICS[name].title for name in names)]
        blocks += [
            Heading(f"{first.data} and {second.data}"),
            TableBlock(header, rows, "ll" + "r" * len(names), f"Two splits of the same images. {notes}"),
        ]
    return blocks


def _results_table_blocks(table: ResultsTable, details: bool) -> list[Block]:
    notes = _Footnotes()
    ordinal = metric_names(MetricKind.ORDINAL)
    names = headline_metric_names(ordered=any(name in row.scores for row in table.rows for name in ordinal))
    blocks: list[Block] = [Heading(table.title)]
    if table.rows:
        blocks.append(_scores_table(table.rows, names, notes, "Scores, best macro F1 first:"))
    if table.not_comparable:
        heading = "Not comparable with the rows above (another split, other averages, or uncertain):"
        blocks.append(_scores_table(table.not_comparable, names, notes, heading if table.rows else "Scores:"))
    if notes.letter_by_note:
        blocks.append(BulletList([f"({letter}) {note}" for note, letter in notes.letter_by_note.items()]))
    blocks += [Paragraph(note) for note in table.notes]
    ours = [row for row in [*table.rows, *table.not_comparable] if row.ours]
    blocks += _probability_blocks(ours)
    for row in ours if details else []:
        blocks += _run_blocks(row)
    return blocks + _comparison_blocks(table)


class _Footnotes:
    """Assigns letters to notes, in order of appearance."""

    def __init__(self) -> None:
        self.letter_by_note: dict[str, str] = {}

    def get_marks(self, notes: list[str]) -> str:
        for note in notes:
            self.letter_by_note.setdefault(note, _footnote_letter(len(self.letter_by_note)))
        return ", ".join(sorted(self.letter_by_note[note] for note in notes))


def _footnote_letter(number: int) -> str:
    return (_footnote_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)


def _scores_table(rows: list[ResultsRow], names: tuple[str, ...], notes: _Footnotes, caption: str) -> TableBlock:
    ranked = [row for row in rows if row.ranked]
    best_scores = {}
    for name in names:
        values = [row.scores[name]["mean"] for row in ranked if name in row.scores]
        if values:
            best_scores[name] = max(values) if METRICS[name].greater_is_better else min(values)
    cell_rows: list[list[Cell | str]] = []
    for row in rows:
        cells: list[Cell | str] = [
            Cell(row.method, bold=row.ours, footnote_marks=notes.get_marks(row.notes)),
            row.initialisation,
        ]
        for name in names:
            score = row.scores.get(name)
            cells.append(
                Cell(format_score(score, name), bold=score is not None and score["mean"] == best_scores.get(name))
            )
        cell_rows.append([*cells, row.source])
    header = ["method", "initialisation", *(METRICS[name].title for name in names), "source"]
    return TableBlock(header, cell_rows, "ll" + "r" * len(names) + "l", caption)


def _interval_decimals(name: str) -> int:
    """Returns the decimals of the ends of an interval: one for per cent, three for grades."""
    return 1 if display_scale(name) == 100.0 else 3


def format_score(score: dict[str, Any] | None, name: str) -> str:
    """Formats a score of a results table with its standard deviation and interval."""
    if score is None:
        return ""
    if "printed" in score:  # as published
        return str(score["printed"]).replace("±", " ± ")
    std = "" if score["std"] is None else f" ± {score['std']:.2f}"
    digits = _interval_decimals(name)
    interval = "" if score["interval"] is None else " [{0:.{2}f}, {1:.{2}f}]".format(*score["interval"], digits)
    return f"{score['mean']:.{max(2, digits)}f}{std}{interval}"


# Diagnostic accuracy


def _probability_blocks(rows: list[ResultsRow]) -> list[Block]:
    runs = [
        (row.method, row.diagnostic_accuracy.probabilities)
        for row in rows
        if row.diagnostic_accuracy and row.diagnostic_accuracy.probabilities
    ]
    if not runs:
        return []
    caption = (
        "Quality of the scores as probabilities, with 95 % intervals. AUROC: macro average, each class against the "
        "rest. Brier score: sum over classes, 0 to 2. ECE: expected calibration error of the predicted class over 15 "
        "bins of equal width; adaptive: bins of equal numbers of images. The calibration error of a perfect model is "
        "above 0, too, so it has no interval."
    )
    names = metric_names(MetricKind.PROBABILITY)
    cells = [[method, *(_format_estimate(values.get(name)) for name in names)] for method, values in runs]
    return [TableBlock(["method", *(METRICS[name].title for name in names)], cells, "l" + "r" * len(names), caption)]


def _format_estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return "undefined"
    interval = "" if estimate.interval is None else " [{:.3f}, {:.3f}]".format(*estimate.interval)
    return f"{estimate.value:.3f}{interval}"


def _run_blocks(row: ResultsRow) -> list[Block]:
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


def _class_rates_table(row: ResultsRow) -> TableBlock:
    caption = f"{row.method}, each class against the rest, in per cent (PPV and NPV at the prevalence of these images):"
    rows = [
        [label, *(_format_percent_rate(rates.get(name)) for name in RATES)] for label, rates in row.by_class.items()
    ]
    return TableBlock(["class", *RATE_TITLES.values()], rows, "l" + "r" * len(RATES), caption)


def _format_percent_rate(rate: dict[str, Any] | None) -> str:
    if rate is None:
        return "no image"
    interval = TOO_FEW_FOR_INTERVAL if rate["interval"] is None else "{:.1f} to {:.1f}".format(*rate["interval"])
    return f"{rate['mean']:.1f} [{interval}]"


def _format_rate(rate: Rate | Estimate | None, scale: float = 100.0) -> str:
    if rate is None:
        return "none"
    digits, interval = 1 if scale == 100.0 else 3, TOO_FEW_FOR_INTERVAL
    if rate.interval is not None:
        interval = " to ".join(f"{scale * end:.{digits}f}" for end in rate.interval)
    return f"{scale * rate.value:.{digits}f} [{interval}]"


def _patient_table(method: str, patients: dict[str, dict[str, Estimate]]) -> TableBlock:
    names = list(next(iter(patients.values())))
    rows = [
        [AGGREGATION_TITLES[aggregation], *(_format_rate(scores[name], display_scale(name)) for name in names)]
        for aggregation, scores in patients.items()
    ]
    header = ["score of", *(METRICS[name].title for name in names)]
    return TableBlock(header, rows, "l" + "r" * len(names), f"{method} by patient (or video), in per cent:")


def _one_vs_rest_blocks(method: str, result: OneVsRestResult) -> list[Block]:
    aurocs = "; ".join(
        f"{_format_estimate(auroc)} ({AGGREGATION_TITLES[name]})" for name, auroc in result.auroc.items()
    )
    title = " or ".join(result.classes)
    caption = (
        f"{method}: {title} against the rest ({100 * result.prevalence:.1f} % of the images). AUROC {aurocs}; average "
        f"precision {result.average_precision:.3f}. Rates in per cent, PPV and NPV at a prevalence of "
        f"{100 * result.target_prevalence:.1f} %. Thresholds were chosen on the split in the column chosen on, and "
        "applied here without change:"
    )
    rows = []
    for point in result.operating_points:
        thresholds = ", ".join(f"{value:.4g}" for value in point.thresholds[:3])
        thresholds += ", ..." if len(point.thresholds) > 3 else ""
        split_rates = "; ".join(f"{name} {100 * value:.1f}" for name, value in point.threshold_split_rates.items())
        threshold_split = f"{point.threshold_split} ({split_rates})" if point.threshold_split else ""
        rates = [_format_rate(point.rates.get(name)) for name in RATES]
        rows.append([point.rule, AGGREGATION_TITLES[point.aggregation], thresholds, threshold_split, *rates])
    header = ["operating point", "score of", "threshold", "chosen on", *RATE_TITLES.values()]
    return [
        TableBlock(header, rows, "llll" + "r" * len(RATES), caption),
        _agreement_paragraph(result),
        _net_benefit_paragraph(result),
    ]


def _agreement_paragraph(result: OneVsRestResult) -> Paragraph:
    values = "; ".join(f"{name} {_format_rate(value)}" for name, value in result.agreement.items())
    return Paragraph(f"By the predicted class, in per cent: {values}.")


def _net_benefit_paragraph(result: OneVsRestResult) -> Paragraph:
    curve, values = result.decision_curve, []
    for threshold in DECISION_CURVE_THRESHOLDS:
        index = int(round(threshold * (len(THRESHOLDS) + 1))) - 1
        values.append(f"{threshold:g}: {curve.net_benefit[index]:.3f} (treating all: {curve.treat_all[index]:.3f})")
    return Paragraph(f"Net benefit per image at threshold probabilities of {'; '.join(values)}.")


def _subgroup_table(method: str, subgroups: Subgroups) -> TableBlock:
    tests = "; ".join(
        f"{METRICS[test['score']].title} p {test['p_value']:.3g}, adjusted {test['p_adjusted']:.3g}"
        for test in subgroups.tests
    )
    caption = (
        f"{method} by {subgroups.column}, in per cent. Test of no difference between the subgroups (interaction; Wald "
        f"test, F): {tests or 'none, because fewer than two subgroups have enough images and patients'}."
    )
    names = next((list(level.scores) for level in subgroups.levels if level.scores), [])
    rows = []
    for level in subgroups.levels:
        count = f"{level.count} patients or videos" if level.units == "groups" else ""
        scores = ["too few"] * len(names)
        if level.scores:
            scores = [_format_rate(level.scores[name], display_scale(name)) for name in names]
        rows.append([level.value, str(level.images), count, *scores])
    header = [subgroups.column, "images", "patients", *(METRICS[name].title for name in names)]
    return TableBlock(header, rows, "lrl" + "r" * len(names), caption)


# Comparisons

COMPARISON_HEADER = ["first", "second", "score", "difference", "p", "p adjusted", "test"]


def _comparison_blocks(table: ResultsTable) -> list[Block]:
    blocks: list[Block] = []
    if table.comparisons:
        rows: list[list[Cell | str]] = [[*comparison_cells(comparison)] for comparison in table.comparisons]
        blocks.append(TableBlock(COMPARISON_HEADER, rows, "lllrrrl", _comparison_caption(table)))
    not_compared = [pair for pair in table.differences if "note" in pair]
    return blocks + [Paragraph(f"{pair['first']} and {pair['second']} were {pair['note']}.") for pair in not_compared]


def comparison_cells(comparison: dict[str, Any]) -> list[str]:
    """Formats a comparison: first and second run, score, difference, p value, adjusted p value, and test."""
    scale, digits = display_scale(comparison["score"]), _interval_decimals(comparison["score"])
    ends = comparison["low"], comparison["high"]
    interval = "" if None in ends else f" [{scale * ends[0]:+.{digits}f}, {scale * ends[1]:+.{digits}f}]"
    test = comparison["test"]
    if resampled := comparison.get("corrected_resampled"):
        test += f"; over folds, corrected: p {resampled['p_value']:.3g}"
    difference = f"{scale * comparison['difference']:+.{max(2, digits)}f}{interval}"
    score = METRICS[comparison["score"]].title + (f", {comparison['task']}" if "task" in comparison else "")
    p_values = [f"{comparison[name]:.3g}" for name in ("p_value", "p_adjusted")]
    return [comparison["first"], comparison["second"], score, difference, *p_values, test]


def _comparison_caption(table: ResultsTable) -> str:
    cluster_notes = " ".join(CLUSTER_NOTES[name] for name in sorted({entry["units"] for entry in table.comparisons}))
    return (
        "Differences between our runs on the same images, second minus first, with 95 % intervals (jackknife) and "
        f"tests of no difference. {cluster_notes} p adjusted: for all comparisons of this table (Holm)."
    )
