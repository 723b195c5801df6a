"""`hf-mae report`: runs beside the published rows, as Markdown, LaTeX and JSON, with intervals and tests."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ..data.benchmarks import Benchmark, PublishedResult, find_benchmark_or_none
from ..evaluation.confusion import display_scale, headline_metrics
from ..evaluation.metrics import HEADLINE
from ..evaluation.operating_points import OneVsRest
from ..evaluation.significance import Difference, compare_predictions, corrected_resampled_test, holm, mcnemar
from ..runs.load_run import SELECTED_ON_EVAL_NOTE, FinishedRun
from .diagnostic_accuracy import DEFAULT_REPORT_OPTIONS, DiagnosticAccuracy, ReportOptions, compute_diagnostic_accuracy

PUBLISHED_RESULTS_CSV = Path(__file__).parents[1] / "published" / "results.csv"

EXPLANATION = (
    "In per cent. ± is the standard deviation over runs, [ ] the 95 % interval (jackknife on the logit; whole patients "
    "or videos are left out where they are known, else images). Bold: our runs, and the best of each column."
)
FOLDS_NOTE = (
    "Folds share training images, so ± over folds is no standard error, and a test that takes them for independent "
    "finds too much: beside the test on all images stands the corrected resampled t test (Nadeau and Bengio, 2003)."
)
REPEATED_IMAGES_NOTE = (
    "Images stand in several folds, so their predictions are not pooled: scores are means over folds."
)


@dataclass
class ResultsRow:
    """A method's line in a table: scores in per cent."""

    method: str
    initialisation: str
    source: str
    ours: bool
    ranked: bool
    scores: dict[str, dict[str, Any]]  # `mean`, `std` and `interval`, in per cent; a score not published is absent
    notes: list[str] = field(default_factory=list)
    by_class: dict[str, dict[str, Any]] = field(default_factory=dict)  # of our runs: rates in per cent, as `scores`
    diagnostic_accuracy: DiagnosticAccuracy | None = None  # of our runs


@dataclass
class ResultsTable:
    """What may be compared with each other (`rows`, best macro F1 first), and what may not (`not_comparable`).

    Args:
        comparisons: between our runs on the same images, by score: `first`, `second`, `units`, `images`, `score`,
            `difference`, `low`, `high`, `p_value`, `p_adjusted`, `test`, and, between cross-validations,
            `corrected_resampled`.
        differences: by pair: McNemar's counts, or a `note` on why it is not compared.
        data: the benchmark, or the name of the data.
        see_also: another benchmark of the same images, whose figures are to be read beside these.
    """

    title: str
    rows: list[ResultsRow]
    not_comparable: list[ResultsRow]
    comparisons: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    data: str = ""
    see_also: str | None = None


def read_published_rows(benchmark: str) -> list[PublishedResult]:
    """The published rows of a benchmark, and those of its data set that do not say of which classes."""
    entry = find_benchmark_or_none(benchmark)
    with open(PUBLISHED_RESULTS_CSV, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["benchmark"] in (benchmark, benchmark.rsplit("-", 1)[0])]
    own = list(entry.published_results) if entry else []
    return own + [
        PublishedResult(
            method=row["method"],
            protocol=row["protocol"],
            scores={name: row[name] for name in HEADLINE if row[name]},
            source=row["source"],
            ranked=row["ranked"] == "yes",
            initialisation=row["initialisation"],
            selected_on_eval_split={"yes": True, "no": False}.get(row["selected_on_eval_split"]),
            note=row["note"],
        )
        for row in rows
    ]


def _make_published_row(row: PublishedResult, protocol: str) -> ResultsRow:
    scores: dict[str, dict[str, Any]] = {}
    for name, printed in row.scores.items():
        mean, _, std = printed.partition("±")
        scores[name] = {"mean": float(mean), "std": float(std) if std else None, "interval": None, "printed": printed}
    notes = [f"{row.note[0].upper()}{row.note[1:]}."] if row.note else []
    if row.protocol != protocol and not row.note:
        notes.append(f"Split: {row.protocol}.")
    if row.selected_on_eval_split:
        notes.append(SELECTED_ON_EVAL_NOTE)
    if row.patients_disjoint is False:
        notes.append("Patients stand on both sides of the split.")
    ranked = row.ranked and row.protocol == protocol
    return ResultsRow(row.method, row.initialisation, row.source, False, ranked, scores, notes)


def _make_own_row(run: FinishedRun, ranked: bool, options: ReportOptions) -> ResultsRow:
    scores = {}
    for name, values in run.scores().items():
        scale = display_scale(name)
        std = None if values["std"] is None else scale * values["std"]
        interval = None if values["interval"] is None else [scale * v for v in values["interval"]]
        scores[name] = {"mean": scale * values["mean"], "std": std, "interval": interval}
    notes = run.notes + ([SELECTED_ON_EVAL_NOTE] if run.selected_on_eval_split else [])
    return ResultsRow(
        run.name,
        run.initialisation,
        "this run",
        True,
        ranked,
        scores,
        notes,
        _class_rates_in_percent(run),
        compute_diagnostic_accuracy(run, options),
    )


def _class_rates_in_percent(run: FinishedRun) -> dict[str, dict[str, Any]]:
    """Of every class, in per cent, with how many images (or equally large groups) tell them."""
    return {
        label: {
            name: {
                "mean": 100 * rate.value,
                "interval": None if rate.interval is None else [100 * end for end in rate.interval],
                "worth": round(rate.n_eff, 1),
            }
            for name, rate in rates.items()
        }
        for label, rates in run.class_rates().items()
    }


def build_results_tables(
    runs: list[FinishedRun], benchmark: str | None = None, options: ReportOptions = DEFAULT_REPORT_OPTIONS
) -> list[ResultsTable]:
    """One table for each data set, split and protocol among the runs, with the published rows of it.

    Args:
        benchmark: also one of its official split, where no run has it.
        options: what is asked of each run; a benchmark's own two-sided task is, where no other is.
    """
    wanted: dict[tuple[str, str, str | None], list[FinishedRun]] = {}
    for run in runs:
        wanted.setdefault((run.data, run.split, run.protocol), []).append(run)
    if benchmark and not any(data == benchmark for data, _, _ in wanted):
        wanted[(benchmark, "", "official")] = []
    result = []
    for (data, split, protocol), chosen in wanted.items():
        entry = find_benchmark_or_none(data)
        published = [
            _make_published_row(row, protocol or (entry.main_protocol if entry else "official"))
            for row in read_published_rows(data)
        ]
        own = _apply_benchmark_task(options, data)
        ours = [_make_own_row(run, protocol is not None or not published, own) for run in chosen]
        rows = [row for row in [*ours, *published] if row.ranked]
        title = f"{data}: {protocol} split" if protocol else f"{data}: {split}"
        if entry:
            title = f"{entry.title} ({protocol or entry.main_protocol})"
        rows.sort(key=lambda row: -row.scores.get("macro_f1", {"mean": 0.0})["mean"])
        apart = [row for row in [*ours, *published] if not row.ranked]
        notes = [FOLDS_NOTE] if any(run.is_cross_validated for run in chosen) else []
        notes += [REPEATED_IMAGES_NOTE] if any(run.has_repeated_images for run in chosen) else []
        notes += _split_notes(entry) if entry else []
        compared = compare_runs(chosen, own)
        result.append(
            ResultsTable(
                title,
                rows,
                apart,
                compared,
                list(compare_errors(chosen)),
                notes,
                data,
                entry.see_also if entry else None,
            )
        )
    return result


def _split_notes(entry: Benchmark) -> list[str]:
    """What a reader is to know of a benchmark's split."""
    told = [f"What the split guarantees: {entry.guarantees}."] if entry.guarantees else []
    told += [f"What it does not: {entry.limitations}."] if entry.limitations else []
    told += [f"To be read beside {entry.see_also}, of the same images."] if entry.see_also else []
    return told


def _apply_benchmark_task(options: ReportOptions, data: str) -> ReportOptions:
    entry = find_benchmark_or_none(data)
    positive = entry.positive if entry else ()
    return replace(options, positive=positive) if positive and options.positive is None else options


def compare_runs(runs: list[FinishedRun], options: ReportOptions = DEFAULT_REPORT_OPTIONS) -> list[dict[str, Any]]:
    """Tests between every two runs on the same images, by score; p values are adjusted for all of them together."""
    found: list[dict[str, Any]] = []
    for first, second in combinations(runs, 2):
        if not _have_same_images(first, second):
            continue
        folds = None
        if first.is_cross_validated and first.num_training_images and second.num_training_images:
            folds = _corrected_resampled_tests(first, second)
        for entry in compare_predictions(first.folds, second.folds):
            more = {"corrected_resampled": folds[entry.score]} if folds else {}
            found.append(_difference_to_dict(first, second, entry) | more)
        if options.positive and set(options.positive) <= set(first.names):
            ids = [first.names.index(name) for name in options.positive]
            task = {"task": f"{' or '.join(options.positive)} against the rest"}
            one, two = (OneVsRest.from_predictions(run.folds, ids).folds for run in (first, second))
            found += [_difference_to_dict(first, second, entry) | task for entry in compare_predictions(one, two)]
    for entry_, adjusted in zip(found, holm([one["p_value"] for one in found])):
        entry_["p_adjusted"] = adjusted
    return found


def _difference_to_dict(first: FinishedRun, second: FinishedRun, entry: Difference) -> dict[str, Any]:
    low, high = entry.interval or (None, None)
    facts: dict[str, Any] = {"first": first.name, "second": second.name, "units": entry.units, "score": entry.score}
    facts |= {"images": sum(len(fold.labels) for fold in first.folds), "difference": entry.difference}
    return facts | {"low": low, "high": high, "p_value": entry.p_value, "test": entry.test}


def _have_same_images(first: FinishedRun, second: FinishedRun) -> bool:
    return first.file_names == second.file_names and first.names == second.names


def _corrected_resampled_tests(first: FinishedRun, second: FinishedRun) -> dict[str, dict[str, float]]:
    """The corrected resampled test over folds and seeds, by headline score."""
    one, two = (
        [headline_metrics(fold.confusion_matrices(), fold.ordered) for fold in run.folds] for run in (first, second)
    )
    tested = float(np.mean([len(fold.labels) for fold in first.folds]))
    found = {}
    for name in one[0]:
        differences = [float(b - a) for left, right in zip(one, two) for a, b in zip(left[name], right[name])]
        found[name] = corrected_resampled_test(differences, tested, float(first.num_training_images or 0))
    return found


def compare_errors(runs: list[FinishedRun]) -> Iterable[dict[str, Any]]:
    """How often every two runs on the same images err where the other does not; a note where these are not the same."""
    for first, second in combinations(runs, 2):
        pair = {"first": first.name, "second": second.name}
        if not _have_same_images(first, second):
            yield pair | {"note": "not evaluated on the same images, so not compared"}
            continue
        labels = np.concatenate([fold.labels for fold in first.folds])
        # One prediction an image: of each fold's first seed.
        one, two = (np.concatenate([fold.predicted[0] for fold in run.folds]) for run in (first, second))
        yield pair | {
            "images": len(labels),
            "mcnemar": mcnemar(labels, one, two, _get_groups(first)),
        }


def _get_groups(run: FinishedRun) -> np.ndarray | None:
    """Patient or video of every image of a run; None where they are not known of all."""
    groups = [fold.groups for fold in run.folds]
    return (
        None if any(part is None for part in groups) else np.concatenate([part for part in groups if part is not None])
    )


def report_to_dict(results_tables: list[ResultsTable]) -> dict[str, Any]:
    """The report as JSON."""

    def row(entry: ResultsRow) -> dict[str, Any]:
        return (
            {key: getattr(entry, key) for key in ("method", "initialisation", "source", "ours", "ranked")}
            | {
                "scores": entry.scores,
                "notes": entry.notes,
            }
            | ({"by_class": entry.by_class} if entry.ours else {})
            | ({"clinical": entry.diagnostic_accuracy.to_dict()} if entry.diagnostic_accuracy else {})
        )

    return {
        "explanation": EXPLANATION,
        "tables": [
            {
                "title": table.title,
                "rows": [row(entry) for entry in table.rows],
                "not_comparable": [row(entry) for entry in table.not_comparable],
                "comparisons": table.comparisons,
                "differences": table.differences,
                "notes": table.notes,
            }
            for table in results_tables
        ],
    }
