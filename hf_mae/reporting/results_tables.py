"""Results tables of runs and published rows, with intervals and tests, one per dataset, split and protocol."""

import csv
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..evaluation.estimation import Rate
from ..evaluation.metrics import headline_metric_names
from ..runs.comparisons import ComparisonOptions, compare_all, compare_errors
from ..runs.completed_run import CompletedRun, Note, NoteCode
from ..settings.benchmarks import PublishedResult, find_benchmark_or_none
from .annotators import AnnotatorAgreement, compute_table_agreement
from .diagnostic_accuracy import DEFAULT_REPORT_OPTIONS, DiagnosticAccuracy, ReportOptions, compute_diagnostic_accuracy
from .headline import run_scores
from .run_sentences import NOTE_TEXTS, describe_note
from .table import Number
from .text_templates import report_text

PUBLISHED_RESULTS_CSV = Path(__file__).parents[1] / "published" / "results.csv"


@dataclass
class ResultsRow:
    """A row of a results table.

    Args:
        method: name of the run or of the published method.
        source: publication, or `this run`.
        ranked: whether the row is comparable with the other ranked rows.
        scores: by name, in per cent (MAE in grades); scores that were not published are absent.
        by_class: of a run, the rates of each class.
    """

    method: str
    initialisation: str
    source: str
    ours: bool
    ranked: bool
    scores: dict[str, Number]
    notes: list[str] = field(default_factory=list)
    by_class: dict[str, dict[str, Rate]] = field(default_factory=dict)
    diagnostic_accuracy: DiagnosticAccuracy | None = None


@dataclass
class ResultsTable:
    """Results on one dataset, split and protocol.

    Args:
        rows: comparable rows, the best macro F1 first.
        not_comparable: the other rows.
        comparisons: tests between our runs on the same images, by score: `first`, `second`, `units`, `images`, `score`,
            `difference`, `low`, `high`, `p_value`, `p_adjusted`, `test`, and, between cross-validations,
            `corrected_resampled`.
        rate_comparisons: differences of the rates of classes and operating points, and of the net benefit
            (`runs.comparisons.compare_rates`).
        margin_tests: of non-inferiority and equivalence (`runs.comparisons.compare_with_first`).
        differences: by pair of runs, McNemar's counts, or `different` (`images`, `classes` or `labels`) if they are not
            compared.
        data: the benchmark, or the name of the data.
        agreement: of the annotators of all images of the data, without a run.
        see_also: another benchmark with the same images, whose results should be read together with these.
    """

    title: str
    rows: list[ResultsRow]
    not_comparable: list[ResultsRow]
    comparisons: list[dict[str, Any]]
    rate_comparisons: list[dict[str, Any]]
    margin_tests: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    data: str = ""
    see_also: str | None = None
    agreement: AnnotatorAgreement | None = None


def read_published_rows(benchmark: str) -> list[PublishedResult]:
    """Reads the published rows of a benchmark, and those of its dataset that do not state the classes."""
    entry = find_benchmark_or_none(benchmark)
    with open(PUBLISHED_RESULTS_CSV, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["benchmark"] in (benchmark, benchmark.rsplit("-", 1)[0])]
    results = list(entry.published_results) if entry else []
    return results + [
        PublishedResult(
            method=row["method"],
            protocol=row["protocol"],
            scores={name: row[name] for name in headline_metric_names(ordered=True) if row.get(name)},
            source=row["source"],
            ranked=row["ranked"] == "yes",
            initialisation=row["initialisation"],
            selected_on_eval_split={"yes": True, "no": False}.get(row["selected_on_eval_split"]),
            note=row["note"],
        )
        for row in rows
    ]


def _make_published_row(row: PublishedResult, protocol: str) -> ResultsRow:
    scores = {}
    for name, printed in row.scores.items():
        mean, _, std = printed.partition("±")
        scores[name] = Number(float(mean), std=float(std) if std else None, printed=printed)
    notes = [f"{row.note[0].upper()}{row.note[1:]}."] if row.note else []
    if row.protocol != protocol and not row.note:
        notes.append(f"Split: {row.protocol}.")
    if row.selected_on_eval_split:
        notes.append(NOTE_TEXTS[NoteCode.SELECTED_ON_EVAL_SPLIT])
    if row.patients_disjoint is False:
        notes.append("Some patients are in both parts of the split.")
    ranked = row.ranked and row.protocol == protocol
    return ResultsRow(row.method, row.initialisation, row.source, False, ranked, scores, notes)


def _make_own_row(run: CompletedRun, ranked: bool, options: ReportOptions) -> ResultsRow:
    scores = run.scores()
    notes = [*run.notes, *([Note(NoteCode.SELECTED_ON_EVAL_SPLIT)] if run.selected_on_eval_split else [])]
    notes += [
        Note(NoteCode.CLASSES_WITHOUT_IMAGES, {"score": name, "classes": values["classes_without_images"]})
        for name, values in scores.items()
        if values["classes_without_images"]
    ]
    return ResultsRow(
        run.name,
        run.initialisation,
        "this run",
        True,
        ranked,
        run_scores(scores),
        [describe_note(note) for note in notes],
        run.class_rates(),
        compute_diagnostic_accuracy(run, options),
    )


def build_results_tables(
    runs: list[CompletedRun], benchmark: str | None = None, options: ReportOptions = DEFAULT_REPORT_OPTIONS
) -> list[ResultsTable]:
    """Builds one table for each dataset, split and protocol of the runs, with the published rows (of `benchmark`, too).

    The binary task of a benchmark is the default of `options.positive`.
    """
    runs_by_table: dict[tuple[str, str, str | None], list[CompletedRun]] = {}
    for run in runs:
        runs_by_table.setdefault((run.data, run.split, run.protocol), []).append(run)
    if benchmark and not any(data == benchmark for data, _, _ in runs_by_table):
        runs_by_table[(benchmark, "", "official")] = []
    tables = []
    for (data, split, protocol), table_runs in runs_by_table.items():
        entry = find_benchmark_or_none(data)
        published = [
            _make_published_row(row, protocol or (entry.main_protocol if entry else "official"))
            for row in read_published_rows(data)
        ]
        table_options = _apply_benchmark_task(options, data)
        ours = [_make_own_row(run, protocol is not None or not published, table_options) for run in table_runs]
        title = f"{data}: {protocol} split" if protocol else f"{data}: {split}" if split else data
        if entry:
            title = f"{entry.title} ({protocol or entry.main_protocol})"
        rows = [row for row in [*ours, *published] if row.ranked]
        rows.sort(key=lambda row: -row.scores["macro_f1"].value if "macro_f1" in row.scores else 0.0)
        notes = [report_text("folds")] if any(run.is_cross_validated for run in table_runs) else []
        notes += [report_text("repeated_images")] if any(run.has_repeated_images for run in table_runs) else []
        if entry:
            texts = (report_text(name, entry=entry) for name in ("guarantees", "limitations", "see_also"))
            notes += filter(None, texts)
        compared = compare_all(
            table_runs,
            ComparisonOptions(
                table_options.positive,
                table_options.operating_points,
                table_options.prevalence,
                table_options.margins,
                table_options.costs,
            ),
        )
        tables.append(
            ResultsTable(
                title,
                rows,
                [row for row in [*ours, *published] if not row.ranked],
                compared.tests,
                compared.rates,
                compared.margin_tests,
                list(compare_errors(table_runs)),
                notes,
                data,
                entry.see_also if entry else None,
            )
        )
    if options.annotators and not runs:
        title = report_text("annotators", source=options.manifest.name if options.manifest else benchmark)
        agreement = compute_table_agreement(options.annotators, options.manifest, benchmark)
        tables.append(ResultsTable(title, [], [], [], [], [], [], data=title, agreement=agreement))
    return tables


def _apply_benchmark_task(options: ReportOptions, data: str) -> ReportOptions:
    entry = find_benchmark_or_none(data)
    positive = entry.positive if entry else ()
    return replace(options, positive=positive) if positive and options.positive is None else options


def report_to_dict(results_tables: list[ResultsTable]) -> dict[str, Any]:
    """Converts a report to the values of `report.json`."""
    return {
        "explanation": report_text("explanation"),
        "tables": [
            {
                "title": table.title,
                "rows": [_row_to_dict(row) for row in table.rows],
                "not_comparable": [_row_to_dict(row) for row in table.not_comparable],
                "comparisons": table.comparisons,
                "rate_comparisons": table.rate_comparisons,
                "margin_tests": table.margin_tests,
                "differences": table.differences,
                "notes": table.notes,
                "agreement": asdict(table.agreement) if table.agreement else None,
            }
            for table in results_tables
        ],
    }


def _row_to_dict(row: ResultsRow) -> dict[str, Any]:
    names = ("method", "initialisation", "source", "ours", "ranked", "notes")
    values: dict[str, Any] = {name: getattr(row, name) for name in names}
    values["scores"] = {name: _score_to_dict(score) for name, score in row.scores.items()}
    if row.ours:
        values["by_class"] = {
            label: {name: _rate_to_dict(rate) for name, rate in rates.items()} for label, rates in row.by_class.items()
        }
    if row.diagnostic_accuracy:
        values["diagnostic_accuracy"] = row.diagnostic_accuracy.to_dict()
    return values


def _score_to_dict(score: Number) -> dict[str, Any]:
    interval = None if score.interval is None else list(score.interval)
    values = {"value": score.value, "std": score.std, "interval": interval, "reason": score.reason or None}
    return values | ({"printed": score.printed} if score.printed else {})


def _rate_to_dict(rate: Rate) -> dict[str, Any]:
    interval = None if rate.interval is None else [100 * end for end in rate.interval]
    return {"value": 100 * rate.value, "interval": interval, "reason": rate.reason, "n_eff": round(rate.n_eff, 1)}
