"""A report as a document: its tables, comparisons, and what a clinical reader asks."""

from collections.abc import Iterable
from typing import Any

from ..evaluation.confusion import TITLES, names_in, shown_as
from ..evaluation.intervals import RATES, Estimate, Rate
from ..evaluation.operating import THRESHOLDS
from ..evaluation.probabilities import PROBABILITY_TITLES
from .clinical import Side, Subgroups
from .document import Block, Cell, Grid, Heading, Paragraph, Points
from .tables import EXPLANATION, Row, Table

RATE_TITLES = {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV"}
LEVELS = {"images": "images", "mean": "patients, mean of their images", "worst": "patients, their worst image"}
TOO_FEW = "too few for an interval"
UNITS = {
    "groups": "Patients or videos are left out and exchanged as wholes.",
    "images": "No patients or videos are known: images are taken for independent.",
}
SHOWN_THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5)  # of a decision curve, in words


def document(found: Iterable[Table], details: bool = True) -> list[Block]:
    """The report.

    Args:
        details: also what is told of each run by itself: classes, patients, operating points, subgroups.
    """
    tables = list(found)
    blocks: list[Block] = [Paragraph(EXPLANATION)]
    for table in tables:
        blocks += _table(table, details)
    return blocks + _side_by_side(tables)


def _side_by_side(tables: list[Table]) -> list[Block]:
    """Our rows on two splits of the same images, where a benchmark says that these belong beside each other."""
    by_data = {table.data: table for table in tables}
    pairs = [(table, by_data[table.beside]) for table in tables if table.beside in by_data]
    blocks: list[Block] = []
    for first, second in pairs:
        if first.data > second.data:
            continue  # once
        rows: list[list[Cell | str]] = []
        for table in (first, second):
            for row in [*table.rows, *table.apart]:
                if row.ours:
                    scores = [_number(row.scores.get(name), name) for name in names_in({})]
                    rows.append([row.method, table.title, *scores])
        caption = f"Side by side, on the same images. {first.title}: {' '.join(first.notes)} {second.title}: "
        caption += " ".join(second.notes)
        head = ["method", "split", *(TITLES[name] for name in names_in({}))]
        blocks += [
            Heading(f"{first.data} and {second.data}"),
            Grid(head, rows, "ll" + "r" * len(names_in({})), caption),
        ]
    return blocks


def _table(table: Table, details: bool) -> list[Block]:
    notes = _Footnotes()
    names = next((names_in(row.scores) for row in table.rows if row.ours), names_in({}))
    blocks: list[Block] = [Heading(table.title)]
    if table.rows:
        blocks.append(_scores(table.rows, names, notes, "Scores, the best macro F1 first:"))
    if table.apart:
        heading = "Not comparable with the rows above (another split, other averages, or in doubt):"
        blocks.append(_scores(table.apart, names, notes, heading if table.rows else "Scores:"))
    if notes.letters:
        blocks.append(Points([f"({letter}) {note}" for note, letter in notes.letters.items()]))
    blocks += [Paragraph(note) for note in table.notes]
    ours = [row for row in [*table.rows, *table.apart] if row.ours]
    blocks += _probabilities(ours)
    for row in ours if details else []:
        blocks += _of_run(row)
    return blocks + _comparisons(table)


class _Footnotes:
    """Letters for notes, in the order in which they come."""

    def __init__(self) -> None:
        self.letters: dict[str, str] = {}

    def marks(self, notes: list[str]) -> str:
        for note in notes:
            self.letters.setdefault(note, _letter(len(self.letters)))
        return ", ".join(sorted(self.letters[note] for note in notes))


def _letter(number: int) -> str:
    return (_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)


def _scores(rows: list[Row], names: tuple[str, ...], notes: _Footnotes, caption: str) -> Grid:
    ranked = [row for row in rows if row.ranked]
    best = {}
    for name in names:
        values = [row.scores[name]["mean"] for row in ranked if name in row.scores]
        if values:
            best[name] = min(values) if name == "mae" else max(values)
    grid: list[list[Cell | str]] = []
    for row in rows:
        cells: list[Cell | str] = [Cell(row.method, bold=row.ours, marks=notes.marks(row.notes)), row.initialisation]
        for name in names:
            score = row.scores.get(name)
            cells.append(Cell(_number(score, name), bold=score is not None and score["mean"] == best.get(name)))
        grid.append([*cells, row.source])
    head = ["method", "initialisation", *(TITLES[name] for name in names), "source"]
    return Grid(head, grid, "ll" + "r" * len(names) + "l", caption)


def _digits(name: str) -> int:
    """Of the ends of an interval: of per cent one, of grades three."""
    return 1 if shown_as(name) == 100.0 else 3


def _number(score: dict[str, Any] | None, name: str) -> str:
    if score is None:
        return ""
    if "printed" in score:  # with the decimals of the source
        return str(score["printed"]).replace("±", " ± ")
    std = "" if score["std"] is None else f" ± {score['std']:.2f}"
    digits = _digits(name)
    interval = "" if score["interval"] is None else " [{0:.{2}f}, {1:.{2}f}]".format(*score["interval"], digits)
    return f"{score['mean']:.{max(2, digits)}f}{std}{interval}"


# What a clinical reader asks


def _probabilities(rows: list[Row]) -> list[Block]:
    shown = [(row.method, row.clinical.probabilities) for row in rows if row.clinical and row.clinical.probabilities]
    if not shown:
        return []
    caption = (
        "How good the scores are as probabilities, with 95 % intervals (AUROC: each class against the rest, macro; "
        "Brier score: summed over classes, 0 to 2; ECE: expected calibration error of the predicted class over 15 bins "
        "of equal width, adaptive: of equally many images. A calibration error is above 0 for a perfect model too; its "
        "interval allows for that)."
    )
    rows_ = [[name, *(_plain(found.get(key)) for key in PROBABILITY_TITLES)] for name, found in shown]
    return [Grid(["method", *PROBABILITY_TITLES.values()], rows_, "l" + "r" * len(PROBABILITY_TITLES), caption)]


def _plain(estimate: Estimate | None) -> str:
    if estimate is None:
        return "undefined"
    reach = "" if estimate.interval is None else " [{:.3f}, {:.3f}]".format(*estimate.interval)
    return f"{estimate.value:.3f}{reach}"


def _of_run(row: Row) -> list[Block]:
    blocks: list[Block] = []
    if row.by_class:
        blocks.append(_classes(row))
    if row.clinical is None:
        return blocks
    if row.clinical.patients:
        blocks.append(_patients(row))
    for side in row.clinical.sides:
        blocks += _side(row.method, side)
    blocks += [_subgroups(row.method, one) for one in row.clinical.subgroups]
    return blocks + ([Points(row.clinical.notes)] if row.clinical.notes else [])


def _classes(row: Row) -> Grid:
    caption = f"Each class of {row.method} against the rest, in per cent (PPV and NPV at these images' prevalence):"
    rows = [[label, *(_rate_in_per_cent(rates.get(name)) for name in RATES)] for label, rates in row.by_class.items()]
    return Grid(["class", *RATE_TITLES.values()], rows, "l" + "r" * len(RATES), caption)


def _rate_in_per_cent(rate: dict[str, Any] | None) -> str:
    if rate is None:
        return "no image"
    reach = TOO_FEW if rate["interval"] is None else "{:.1f} to {:.1f}".format(*rate["interval"])
    return f"{rate['mean']:.1f} [{reach}]"


def _rate(rate: Rate | Estimate | None, scale: float = 100.0) -> str:
    if rate is None:
        return "none"
    digits = 1 if scale == 100.0 else 3
    ends = rate.interval
    reach = TOO_FEW if ends is None else f"{scale * ends[0]:.{digits}f} to {scale * ends[1]:.{digits}f}"
    return f"{scale * rate.value:.{digits}f} [{reach}]"


def _patients(row: Row) -> Grid:
    assert row.clinical is not None, "it has patients"
    found = row.clinical.patients
    names = list(next(iter(found.values())))
    rows = [[LEVELS[way], *(_rate(scores[name], shown_as(name)) for name in names)] for way, scores in found.items()]
    head = ["one score for", *(TITLES[name] for name in names)]
    return Grid(head, rows, "l" + "r" * len(names), f"{row.method} by patient (or video), in per cent:")


def _side(method: str, side: Side) -> list[Block]:
    areas = "; ".join(f"{_plain(area)} ({LEVELS[of]})" for of, area in side.auroc.items())
    title = " or ".join(side.classes)
    caption = (
        f"{method}: {title} against the rest ({100 * side.prevalence:.1f} % of the images). AUROC {areas}; average "
        f"precision {side.average_precision:.3f}. Rates in per cent, PPV and NPV at a prevalence of "
        f"{100 * side.at_prevalence:.1f} %. Thresholds were chosen on the split that is named, and applied here as "
        "they were:"
    )
    rows = []
    for point in side.points:
        thresholds = ", ".join(f"{value:.4g}" for value in point.thresholds[:3])
        thresholds += ", ..." if len(point.thresholds) > 3 else ""
        there = "; ".join(f"{name} {100 * value:.1f}" for name, value in point.there.items())
        chosen = f"{point.chosen_on} ({there})" if point.chosen_on else ""
        rates = [_rate(point.rates.get(name)) for name in RATES]
        rows.append([point.rule, LEVELS[point.of], thresholds, chosen, *rates])
    head = ["operating point", "of", "threshold", "chosen on", *RATE_TITLES.values()]
    return [Grid(head, rows, "llll" + "r" * len(RATES), caption), _agreement(side), _net_benefit(side)]


def _agreement(side: Side) -> Paragraph:
    found = "; ".join(f"{name} {_rate(value)}" for name, value in side.agreement.items())
    return Paragraph(f"By the predicted class, in per cent: {found}.")


def _net_benefit(side: Side) -> Paragraph:
    curve, told = side.decision_curve, []
    for threshold in SHOWN_THRESHOLDS:
        place = int(round(threshold * (len(THRESHOLDS) + 1))) - 1
        told.append(f"{threshold:g}: {curve.net_benefit[place]:.3f} (treating all: {curve.treat_all[place]:.3f})")
    return Paragraph(f"Net benefit per image at threshold probabilities of {'; '.join(told)}.")


def _subgroups(method: str, found: Subgroups) -> Grid:
    tests = "; ".join(
        f"{TITLES[test['score']]} p {test['p_value']:.3g}, adjusted {test['p_adjusted']:.3g}" for test in found.tests
    )
    caption = (
        f"{method} by {found.column}, in per cent. Test of no difference between the parts (interaction; Wald's, F): "
        f"{tests or 'none, as fewer than two parts have enough images and patients'}."
    )
    names = next((list(part.scores) for part in found.parts if part.scores), [])
    rows = []
    for part in found.parts:
        count = f"{part.count} patients or videos" if part.units == "groups" else ""
        scores = (
            [_rate(part.scores[name], shown_as(name)) for name in names] if part.scores else ["too few"] * len(names)
        )
        rows.append([part.value, str(part.images), count, *scores])
    head = [found.column, "images", "patients", *(TITLES[name] for name in names)]
    return Grid(head, rows, "lrl" + "r" * len(names), caption)


# Comparisons

HEADS = ["first", "second", "score", "difference", "p", "p adjusted", "test"]


def _comparisons(table: Table) -> list[Block]:
    blocks: list[Block] = []
    if table.comparisons:
        blocks.append(Grid(HEADS, [_compared(entry) for entry in table.comparisons], "lllrrrl", _about(table)))
    apart = [pair for pair in table.differences if "note" in pair]
    return blocks + [Paragraph(f"{pair['first']} and {pair['second']} are {pair['note']}.") for pair in apart]


def _compared(entry: dict[str, Any]) -> list[Cell | str]:
    scale, digits = shown_as(entry["score"]), _digits(entry["score"])
    ends = entry["low"], entry["high"]
    reach = "" if None in ends else f" [{scale * ends[0]:+.{digits}f}, {scale * ends[1]:+.{digits}f}]"
    test = entry["test"]
    if folds := entry.get("corrected_resampled"):
        test += f"; over folds, corrected: p {folds['p_value']:.3g}"
    difference = f"{scale * entry['difference']:+.{max(2, digits)}f}{reach}"
    score = TITLES[entry["score"]] + (f", {entry['task']}" if "task" in entry else "")
    p_values = [f"{entry[name]:.3g}" for name in ("p_value", "p_adjusted")]
    return [entry["first"], entry["second"], score, difference, *p_values, test]


def _about(table: Table) -> str:
    """What is to be known of the comparisons of a table."""
    units = " ".join(UNITS[name] for name in sorted({entry["units"] for entry in table.comparisons}))
    return (
        "Differences between our runs on the same images, second minus first, with 95 % intervals (jackknife) and "
        f"tests of no difference. {units} p adjusted: for all comparisons of this table (Holm)."
    )
