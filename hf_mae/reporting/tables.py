"""`hf-mae report`: runs beside the published rows, as Markdown, LaTeX and JSON, with intervals and tests."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ..data.benchmarks import BENCHMARKS
from ..evaluation.metrics import HEADLINE
from ..evaluation.statistics import mcnemar, paired_bootstrap
from ..runs.finished import CHOSEN_ON_EVALUATED, FinishedRun

PUBLISHED = Path(__file__).parents[1] / "published" / "results.csv"

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
    scores: dict[str, dict[str, Any]] = {}
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
            "mcnemar": mcnemar(labels, one, two, _groups_of(first)),
        }


def _groups_of(run: FinishedRun) -> np.ndarray | None:
    """Patient or video of every image of a run; None where they are not known of all."""
    groups = [fold.groups for fold in run.folds]
    return (
        None if any(part is None for part in groups) else np.concatenate([part for part in groups if part is not None])
    )


def as_json(found: list[Table]) -> dict[str, Any]:
    """The report as JSON."""

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
