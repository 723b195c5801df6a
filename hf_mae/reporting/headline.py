"""The table of headline metrics: built here only, for the terminal, reports, cards, notebooks and the PDF page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..evaluation.intervals import Estimate
from ..evaluation.metrics import available_metric_names, display_scale, headline_metric_names
from ..settings.metrics import METRICS, MetricKind, metric_names
from .table import TOO_FEW_FOR_INTERVAL, Cell, CellLike, Column, Number, Table

Interval = Sequence[float] | None
RATE_TITLES = {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV"}


@dataclass(frozen=True)
class HeadlineRow:
    """A row of the table.

    Args:
        labels: cells before the scores.
        scores: by metric (see `make_score`); absent: the metric was not published.
        ranked: whether the row takes part in the comparison for the best value.
        remarks: cells after the scores.
        missing: text in place of a score that is absent.
    """

    labels: Sequence[CellLike]
    scores: Mapping[str, Number]
    ranked: bool = True
    remarks: Sequence[CellLike] = field(default_factory=tuple)
    missing: str = ""


def make_score(
    name: str, value: float, interval: Interval = None, std: float | None = None, reason: str = ""
) -> Number:
    """Makes the displayed score of a metric (in per cent, or in grades) from fractions, or grades."""
    scale = display_scale(name)
    ends = None if interval is None else (scale * interval[0], scale * interval[1])
    scaled_std = None if std is None else scale * std
    digits, interval_digits = (2, 1) if scale == 100 else (3, 3)
    return Number(scale * value, digits, scaled_std, ends, interval_digits, "" if ends else reason)


def score_title(name: str) -> str:
    """Returns the title of a metric, or of a rate or the F1 of positive classes."""
    return METRICS[name].title if name in METRICS else RATE_TITLES.get(name, "F1")


def split_scores(scores: Mapping[str, Any]) -> dict[str, Number]:
    """Makes the displayed scores of a split from its metrics and `intervals`."""
    intervals = scores.get("intervals") or {}
    return {
        name: make_score(
            name, scores[name], intervals.get(name), reason=TOO_FEW_FOR_INTERVAL if name in intervals else ""
        )
        for name in available_metric_names(scores)
    }


def run_scores(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Number]:
    """Makes the displayed scores of a run (`CompletedRun.scores`): means over its folds and seeds."""
    return {
        name: make_score(name, values["mean"], values["interval"], values["std"], values["reason"] or "")
        for name, values in scores.items()
    }


def estimated_scores(estimates: Mapping[str, Estimate]) -> dict[str, Number]:
    """Makes the displayed scores of estimates, such as those of patients."""
    return {
        name: make_score(name, estimate.value, estimate.interval, reason=estimate.reason or "")
        for name, estimate in estimates.items()
    }


def repeated_scores(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Number]:
    """Makes the displayed mean and standard deviation of each metric over repeated runs."""
    return {
        name: make_score(name, metrics[name]["mean"], std=metrics[name]["std"])
        for name in available_metric_names(metrics)
    }


def make_difference(comparison: Mapping[str, Any]) -> Number:
    """Makes the displayed difference of a comparison of two runs."""
    ends = comparison["low"], comparison["high"]
    score = make_score(comparison["score"], comparison["difference"], None if None in ends else ends)
    return replace(score, signed=True)


def headline_table(
    labels: Sequence[Column],
    rows: Sequence[HeadlineRow],
    *,
    remarks: Sequence[Column] = (),
    caption: str = "",
    mark_best: bool = False,
) -> Table:
    """Builds the table: one row per run, split or method, with macro precision, recall and F1, accuracy and MCC, and
    for grades QWK, MAE and one-off accuracy.

    Args:
        labels: columns before the scores.
        remarks: columns after the scores.
        mark_best: print the best value of each column in bold.
    """
    ordinal = set(metric_names(MetricKind.ORDINAL))
    names = headline_metric_names(ordered=any(ordinal & row.scores.keys() for row in rows))
    best = {name: _best_value(name, rows) for name in names} if mark_best else {}
    columns = [*labels, *map(_metric_column, names), *remarks]
    cells = [[*row.labels, *(_score_cell(row, name, best.get(name)) for name in names), *row.remarks] for row in rows]
    return Table(columns, cells, caption)


def _metric_column(name: str) -> Column:
    title, short_title = METRICS[name].title, METRICS[name].short_title
    return Column(title, "r", (short_title or title).replace(" ", "\n", 1))


def _best_value(name: str, rows: Sequence[HeadlineRow]) -> float | None:
    values = [row.scores[name].value for row in rows if row.ranked and name in row.scores]
    if not values:
        return None
    return max(values) if METRICS[name].greater_is_better else min(values)


def _score_cell(row: HeadlineRow, name: str, best: float | None) -> Cell:
    score = row.scores.get(name)
    return Cell(row.missing) if score is None else Cell(score, bold=row.ranked and score.value == best)


def split_table(scores_by_split: Mapping[str, Mapping[str, Any]], caption: str = "") -> Table:
    """Builds the table of the splits of a run: its closing table, and that of its card."""
    rows = [
        HeadlineRow([split, scores["num_images"]], split_scores(scores)) for split, scores in scores_by_split.items()
    ]
    return headline_table([Column("split"), Column("images", "r")], rows, caption=caption)
