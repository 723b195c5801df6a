"""A report as a document: its tables, comparisons, and what a clinical reader asks."""

from collections.abc import Iterable
from typing import Any

from ..evaluation.confusion import TITLES, available_metric_names, display_scale
from ..evaluation.intervals import RATES, Estimate, Rate
from ..evaluation.operating_points import THRESHOLDS
from ..evaluation.probability_metrics import PROBABILITY_TITLES
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
UNIT_NOTES = {
    "groups": "Patients or videos are left out and exchanged as wholes.",
    "images": "No patients or videos are known: images are taken for independent.",
}
DECISION_CURVE_THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5)  # of a decision curve, in words


def build_report_document(results_tables: Iterable[ResultsTable], details: bool = True) -> list[Block]:
    """The report.

    Args:
        details: also what is told of each run by itself: classes, patients, operating points, subgroups.
    """
    tables = list(results_tables)
    blocks: list[Block] = [Paragraph(EXPLANATION)]
    for table in tables:
        blocks += _results_table_blocks(table, details)
    return blocks + _see_also_blocks(tables)


def _see_also_blocks(tables: list[ResultsTable]) -> list[Block]:
    """Our rows on two splits of the same images, where a benchmark says that these belong beside each other."""
    by_data = {table.data: table for table in tables}
    pairs = [(table, by_data[table.see_also]) for table in tables if table.see_also in by_data]
    blocks: list[Block] = []
    for first, second in pairs:
        if first.data > second.data:
            continue  # once
        rows: list[list[Cell | str]] = []
        for table in (first, second):
            for row in [*table.rows, *table.not_comparable]:
                if row.ours:
                    scores = [_format_score(row.scores.get(name), name) for name in available_metric_names({})]
                    rows.append([row.method, table.title, *scores])
        caption = f"Side by side, on the same images. {first.title}: {' '.join(first.notes)} {second.title}: "
        caption += " ".join(second.notes)
        head = ["method", "split", *(TITLES[name] for name in available_metric_names({}))]
        blocks += [
            Heading(f"{first.data} and {second.data}"),
            TableBlock(head, rows, "ll" + "r" * len(available_metric_names({})), caption),
        ]
    return blocks


def _results_table_blocks(table: ResultsTable, details: bool) -> list[Block]:
    notes = _Footnotes()
    names = next((available_metric_names(row.scores) for row in table.rows if row.ours), available_metric_names({}))
    blocks: list[Block] = [Heading(table.title)]
    if table.rows:
        blocks.append(_scores_table(table.rows, names, notes, "Scores, the best macro F1 first:"))
    if table.not_comparable:
        heading = "Not comparable with the rows above (another split, other averages, or in doubt):"
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
    """Letters for notes, in the order in which they come."""

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
    best = {}
    for name in names:
        values = [row.scores[name]["mean"] for row in ranked if name in row.scores]
        if values:
            best[name] = min(values) if name == "mae" else max(values)
    grid: list[list[Cell | str]] = []
    for row in rows:
        cells: list[Cell | str] = [
            Cell(row.method, bold=row.ours, footnote_marks=notes.get_marks(row.notes)),
            row.initialisation,
        ]
        for name in names:
            score = row.scores.get(name)
            cells.append(Cell(_format_score(score, name), bold=score is not None and score["mean"] == best.get(name)))
        grid.append([*cells, row.source])
    head = ["method", "initialisation", *(TITLES[name] for name in names), "source"]
    return TableBlock(head, grid, "ll" + "r" * len(names) + "l", caption)


def _interval_decimals(name: str) -> int:
    """Of the ends of an interval: of per cent one, of grades three."""
    return 1 if display_scale(name) == 100.0 else 3


def _format_score(score: dict[str, Any] | None, name: str) -> str:
    if score is None:
        return ""
    if "printed" in score:  # with the decimals of the source
        return str(score["printed"]).replace("±", " ± ")
    std = "" if score["std"] is None else f" ± {score['std']:.2f}"
    digits = _interval_decimals(name)
    interval = "" if score["interval"] is None else " [{0:.{2}f}, {1:.{2}f}]".format(*score["interval"], digits)
    return f"{score['mean']:.{max(2, digits)}f}{std}{interval}"


# What a clinical reader asks


def _probability_blocks(rows: list[ResultsRow]) -> list[Block]:
    shown = [
        (row.method, row.diagnostic_accuracy.probabilities)
        for row in rows
        if row.diagnostic_accuracy and row.diagnostic_accuracy.probabilities
    ]
    if not shown:
        return []
    caption = (
        "How good the scores are as probabilities, with 95 % intervals (AUROC: each class against the rest, macro; "
        "Brier score: summed over classes, 0 to 2; ECE: expected calibration error of the predicted class over 15 bins "
        "of equal width, adaptive: of equally many images. A calibration error is above 0 for a perfect model too; its "
        "interval allows for that)."
    )
    rows_ = [[name, *(_format_estimate(found.get(key)) for key in PROBABILITY_TITLES)] for name, found in shown]
    return [TableBlock(["method", *PROBABILITY_TITLES.values()], rows_, "l" + "r" * len(PROBABILITY_TITLES), caption)]


def _format_estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return "undefined"
    reach = "" if estimate.interval is None else " [{:.3f}, {:.3f}]".format(*estimate.interval)
    return f"{estimate.value:.3f}{reach}"


def _run_blocks(row: ResultsRow) -> list[Block]:
    blocks: list[Block] = []
    if row.by_class:
        blocks.append(_class_rates_table(row))
    if row.diagnostic_accuracy is None:
        return blocks
    if row.diagnostic_accuracy.patients:
        blocks.append(_patient_table(row))
    for side in row.diagnostic_accuracy.one_vs_rest:
        blocks += _one_vs_rest_blocks(row.method, side)
    blocks += [_subgroup_table(row.method, one) for one in row.diagnostic_accuracy.subgroups]
    return blocks + ([BulletList(row.diagnostic_accuracy.notes)] if row.diagnostic_accuracy.notes else [])


def _class_rates_table(row: ResultsRow) -> TableBlock:
    caption = f"Each class of {row.method} against the rest, in per cent (PPV and NPV at these images' prevalence):"
    rows = [
        [label, *(_format_percent_rate(rates.get(name)) for name in RATES)] for label, rates in row.by_class.items()
    ]
    return TableBlock(["class", *RATE_TITLES.values()], rows, "l" + "r" * len(RATES), caption)


def _format_percent_rate(rate: dict[str, Any] | None) -> str:
    if rate is None:
        return "no image"
    reach = TOO_FEW_FOR_INTERVAL if rate["interval"] is None else "{:.1f} to {:.1f}".format(*rate["interval"])
    return f"{rate['mean']:.1f} [{reach}]"


def _format_rate(rate: Rate | Estimate | None, scale: float = 100.0) -> str:
    if rate is None:
        return "none"
    digits = 1 if scale == 100.0 else 3
    ends = rate.interval
    reach = TOO_FEW_FOR_INTERVAL if ends is None else f"{scale * ends[0]:.{digits}f} to {scale * ends[1]:.{digits}f}"
    return f"{scale * rate.value:.{digits}f} [{reach}]"


def _patient_table(row: ResultsRow) -> TableBlock:
    assert row.diagnostic_accuracy is not None, "it has patients"
    found = row.diagnostic_accuracy.patients
    names = list(next(iter(found.values())))
    rows = [
        [AGGREGATION_TITLES[way], *(_format_rate(scores[name], display_scale(name)) for name in names)]
        for way, scores in found.items()
    ]
    head = ["one score for", *(TITLES[name] for name in names)]
    return TableBlock(head, rows, "l" + "r" * len(names), f"{row.method} by patient (or video), in per cent:")


def _one_vs_rest_blocks(method: str, result: OneVsRestResult) -> list[Block]:
    areas = "; ".join(f"{_format_estimate(area)} ({AGGREGATION_TITLES[of]})" for of, area in result.auroc.items())
    title = " or ".join(result.classes)
    caption = (
        f"{method}: {title} against the rest ({100 * result.prevalence:.1f} % of the images). AUROC {areas}; average "
        f"precision {result.average_precision:.3f}. Rates in per cent, PPV and NPV at a prevalence of "
        f"{100 * result.target_prevalence:.1f} %. Thresholds were chosen on the split that is named, and applied here as "
        "they were:"
    )
    rows = []
    for point in result.operating_points:
        thresholds = ", ".join(f"{value:.4g}" for value in point.thresholds[:3])
        thresholds += ", ..." if len(point.thresholds) > 3 else ""
        there = "; ".join(f"{name} {100 * value:.1f}" for name, value in point.threshold_split_rates.items())
        chosen = f"{point.threshold_split} ({there})" if point.threshold_split else ""
        rates = [_format_rate(point.rates.get(name)) for name in RATES]
        rows.append([point.rule, AGGREGATION_TITLES[point.aggregation], thresholds, chosen, *rates])
    head = ["operating point", "of", "threshold", "chosen on", *RATE_TITLES.values()]
    return [
        TableBlock(head, rows, "llll" + "r" * len(RATES), caption),
        _agreement_paragraph(result),
        _net_benefit_paragraph(result),
    ]


def _agreement_paragraph(result: OneVsRestResult) -> Paragraph:
    found = "; ".join(f"{name} {_format_rate(value)}" for name, value in result.agreement.items())
    return Paragraph(f"By the predicted class, in per cent: {found}.")


def _net_benefit_paragraph(result: OneVsRestResult) -> Paragraph:
    curve, told = result.decision_curve, []
    for threshold in DECISION_CURVE_THRESHOLDS:
        place = int(round(threshold * (len(THRESHOLDS) + 1))) - 1
        told.append(f"{threshold:g}: {curve.net_benefit[place]:.3f} (treating all: {curve.treat_all[place]:.3f})")
    return Paragraph(f"Net benefit per image at threshold probabilities of {'; '.join(told)}.")


def _subgroup_table(method: str, subgroups: Subgroups) -> TableBlock:
    tests = "; ".join(
        f"{TITLES[test['score']]} p {test['p_value']:.3g}, adjusted {test['p_adjusted']:.3g}"
        for test in subgroups.tests
    )
    caption = (
        f"{method} by {subgroups.column}, in per cent. Test of no difference between the parts (interaction; Wald's, F): "
        f"{tests or 'none, as fewer than two parts have enough images and patients'}."
    )
    names = next((list(part.scores) for part in subgroups.levels if part.scores), [])
    rows = []
    for part in subgroups.levels:
        count = f"{part.count} patients or videos" if part.units == "groups" else ""
        scores = (
            [_format_rate(part.scores[name], display_scale(name)) for name in names]
            if part.scores
            else ["too few"] * len(names)
        )
        rows.append([part.value, str(part.images), count, *scores])
    head = [subgroups.column, "images", "patients", *(TITLES[name] for name in names)]
    return TableBlock(head, rows, "lrl" + "r" * len(names), caption)


# Comparisons

COMPARISON_HEADER = ["first", "second", "score", "difference", "p", "p adjusted", "test"]


def _comparison_blocks(table: ResultsTable) -> list[Block]:
    blocks: list[Block] = []
    if table.comparisons:
        blocks.append(
            TableBlock(
                COMPARISON_HEADER,
                [_comparison_row(entry) for entry in table.comparisons],
                "lllrrrl",
                _comparison_caption(table),
            )
        )
    apart = [pair for pair in table.differences if "note" in pair]
    return blocks + [Paragraph(f"{pair['first']} and {pair['second']} are {pair['note']}.") for pair in apart]


def _comparison_row(entry: dict[str, Any]) -> list[Cell | str]:
    scale, digits = display_scale(entry["score"]), _interval_decimals(entry["score"])
    ends = entry["low"], entry["high"]
    reach = "" if None in ends else f" [{scale * ends[0]:+.{digits}f}, {scale * ends[1]:+.{digits}f}]"
    test = entry["test"]
    if folds := entry.get("corrected_resampled"):
        test += f"; over folds, corrected: p {folds['p_value']:.3g}"
    difference = f"{scale * entry['difference']:+.{max(2, digits)}f}{reach}"
    score = TITLES[entry["score"]] + (f", {entry['task']}" if "task" in entry else "")
    p_values = [f"{entry[name]:.3g}" for name in ("p_value", "p_adjusted")]
    return [entry["first"], entry["second"], score, difference, *p_values, test]


def _comparison_caption(table: ResultsTable) -> str:
    """What is to be known of the comparisons of a table."""
    units = " ".join(UNIT_NOTES[name] for name in sorted({entry["units"] for entry in table.comparisons}))
    return (
        "Differences between our runs on the same images, second minus first, with 95 % intervals (jackknife) and "
        f"tests of no difference. {units} p adjusted: for all comparisons of this table (Holm)."
    )
