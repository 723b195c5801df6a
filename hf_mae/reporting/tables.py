"""`hf-mae report`: runs beside the published rows, as Markdown, LaTeX and JSON, with intervals and tests."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ..data.benchmarks import Benchmark, Published, known_benchmark
from ..evaluation.comparisons import Difference, compare_predictions, corrected_resampled_test, holm, mcnemar
from ..evaluation.confusion import scores_of, shown_as
from ..evaluation.metrics import HEADLINE
from ..evaluation.operating import Sided
from ..runs.finished import CHOSEN_ON_EVALUATED, FinishedRun
from .clinical import NOTHING_ASKED, Clinical, Questions, answers

PUBLISHED = Path(__file__).parents[1] / "published" / "results.csv"

EXPLANATION = (
    "In per cent. ± is the standard deviation over runs, [ ] the 95 % interval (jackknife on the logit; whole patients "
    "or videos are left out where they are known, else images). Bold: our runs, and the best of each column."
)
FOLDS = (
    "Folds share training images, so ± over folds is no standard error, and a test that takes them for independent "
    "finds too much: beside the test on all images stands the corrected resampled t test (Nadeau and Bengio, 2003)."
)
REPEATED = "Images stand in several folds, so their predictions are not pooled: scores are means over folds."


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
    by_class: dict[str, dict[str, Any]] = field(default_factory=dict)  # of our runs: rates in per cent, as `scores`
    clinical: Clinical | None = None  # of our runs


@dataclass
class Table:
    """What may be compared with each other (`rows`, best macro F1 first), and what may not (`apart`).

    Args:
        comparisons: between our runs on the same images, by score: `first`, `second`, `units`, `images`, `score`,
            `difference`, `low`, `high`, `p_value`, `p_adjusted`, `test`, and, between cross-validations,
            `corrected_resampled`.
        differences: by pair: McNemar's counts, or a `note` on why it is not compared.
        data: the benchmark, or the name of the data.
        beside: another benchmark of the same images, whose figures are to be read beside these.
    """

    title: str
    rows: list[Row]
    apart: list[Row]
    comparisons: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    data: str = ""
    beside: str | None = None


def published_rows(benchmark: str) -> list[Published]:
    """The published rows of a benchmark, and those of its data set that do not say of which classes."""
    entry = known_benchmark(benchmark)
    with open(PUBLISHED, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["benchmark"] in (benchmark, benchmark.rsplit("-", 1)[0])]
    own = list(entry.published) if entry else []
    return own + [
        Published(
            method=row["method"],
            protocol=row["protocol"],
            scores={name: row[name] for name in HEADLINE if row[name]},
            source=row["source"],
            ranked=row["ranked"] == "yes",
            initialisation=row["initialisation"],
            chosen_on_evaluated={"yes": True, "no": False}.get(row["chosen_on_evaluated"]),
            note=row["note"],
        )
        for row in rows
    ]


def _published(row: Published, protocol: str) -> Row:
    scores: dict[str, dict[str, Any]] = {}
    for name, printed in row.scores.items():
        mean, _, std = printed.partition("±")
        scores[name] = {"mean": float(mean), "std": float(std) if std else None, "interval": None, "printed": printed}
    notes = [f"{row.note[0].upper()}{row.note[1:]}."] if row.note else []
    if row.protocol != protocol and not row.note:
        notes.append(f"Split: {row.protocol}.")
    if row.chosen_on_evaluated:
        notes.append(CHOSEN_ON_EVALUATED)
    if row.patients_apart is False:
        notes.append("Patients stand on both sides of the split.")
    ranked = row.ranked and row.protocol == protocol
    return Row(row.method, row.initialisation, row.source, False, ranked, scores, notes)


def _ours(run: FinishedRun, ranked: bool, asked: Questions) -> Row:
    scores = {}
    for name, values in run.scores().items():
        scale = shown_as(name)
        std = None if values["std"] is None else scale * values["std"]
        interval = None if values["interval"] is None else [scale * v for v in values["interval"]]
        scores[name] = {"mean": scale * values["mean"], "std": std, "interval": interval}
    notes = run.notes + ([CHOSEN_ON_EVALUATED] if run.chosen_on_evaluated else [])
    return Row(run.name, run.initialisation, "this run", True, ranked, scores, notes, _rates(run), answers(run, asked))


def _rates(run: FinishedRun) -> dict[str, dict[str, Any]]:
    """Of every class, in per cent, with how many images (or equally large groups) tell them."""
    return {
        label: {
            name: {
                "mean": 100 * rate.value,
                "interval": None if rate.interval is None else [100 * end for end in rate.interval],
                "worth": round(rate.worth, 1),
            }
            for name, rate in rates.items()
        }
        for label, rates in run.by_class().items()
    }


def tables(runs: list[FinishedRun], benchmark: str | None = None, asked: Questions = NOTHING_ASKED) -> list[Table]:
    """One table for each data set, split and protocol among the runs, with the published rows of it.

    Args:
        benchmark: also one of its official split, where no run has it.
        asked: what is asked of each run; a benchmark's own two-sided task is, where no other is.
    """
    wanted: dict[tuple[str, str, str | None], list[FinishedRun]] = {}
    for run in runs:
        wanted.setdefault((run.data, run.split, run.protocol), []).append(run)
    if benchmark and not any(data == benchmark for data, _, _ in wanted):
        wanted[(benchmark, "", "official")] = []
    result = []
    for (data, split, protocol), chosen in wanted.items():
        entry = known_benchmark(data)
        published = [
            _published(row, protocol or (entry.main_protocol if entry else "official")) for row in published_rows(data)
        ]
        own = _with_own_task(asked, data)
        ours = [_ours(run, protocol is not None or not published, own) for run in chosen]
        rows = [row for row in [*ours, *published] if row.ranked]
        title = f"{data}: {protocol} split" if protocol else f"{data}: {split}"
        if entry:
            title = f"{entry.title} ({protocol or entry.main_protocol})"
        rows.sort(key=lambda row: -row.scores.get("macro_f1", {"mean": 0.0})["mean"])
        apart = [row for row in [*ours, *published] if not row.ranked]
        notes = [FOLDS] if any(run.is_cross_validated for run in chosen) else []
        notes += [REPEATED] if any(run.repeats_images for run in chosen) else []
        notes += _of_the_split(entry) if entry else []
        compared = comparisons(chosen, own)
        result.append(
            Table(title, rows, apart, compared, list(differences(chosen)), notes, data, entry.beside if entry else None)
        )
    return result


def _of_the_split(entry: Benchmark) -> list[str]:
    """What a reader is to know of a benchmark's split."""
    told = [f"What the split guarantees: {entry.guaranteed}."] if entry.guaranteed else []
    told += [f"What it does not: {entry.not_guaranteed}."] if entry.not_guaranteed else []
    told += [f"To be read beside {entry.beside}, of the same images."] if entry.beside else []
    return told


def _with_own_task(asked: Questions, data: str) -> Questions:
    entry = known_benchmark(data)
    positive = entry.positive if entry else ()
    return replace(asked, positive=positive) if positive and asked.positive is None else asked


def comparisons(runs: list[FinishedRun], asked: Questions = NOTHING_ASKED) -> list[dict[str, Any]]:
    """Tests between every two runs on the same images, by score; p values are adjusted for all of them together."""
    found: list[dict[str, Any]] = []
    for first, second in combinations(runs, 2):
        if not _same_images(first, second):
            continue
        folds = None
        if first.is_cross_validated and first.trained_on and second.trained_on:
            folds = _by_fold(first, second)
        for entry in compare_predictions(first.folds, second.folds):
            more = {"corrected_resampled": folds[entry.score]} if folds else {}
            found.append(_as_facts(first, second, entry) | more)
        if asked.positive and set(asked.positive) <= set(first.names):
            ids = [first.names.index(name) for name in asked.positive]
            task = {"task": f"{' or '.join(asked.positive)} against the rest"}
            one, two = (Sided.of(run.folds, ids).folds for run in (first, second))
            found += [_as_facts(first, second, entry) | task for entry in compare_predictions(one, two)]
    for entry_, adjusted in zip(found, holm([one["p_value"] for one in found])):
        entry_["p_adjusted"] = adjusted
    return found


def _as_facts(first: FinishedRun, second: FinishedRun, entry: Difference) -> dict[str, Any]:
    low, high = entry.interval or (None, None)
    facts: dict[str, Any] = {"first": first.name, "second": second.name, "units": entry.units, "score": entry.score}
    facts |= {"images": sum(len(fold.labels) for fold in first.folds), "difference": entry.difference}
    return facts | {"low": low, "high": high, "p_value": entry.p_value, "test": entry.test}


def _same_images(first: FinishedRun, second: FinishedRun) -> bool:
    return first.file_names == second.file_names and first.names == second.names


def _by_fold(first: FinishedRun, second: FinishedRun) -> dict[str, dict[str, float]]:
    """The corrected resampled test over folds and seeds, by headline score."""
    one, two = ([scores_of(fold.confusion_matrices(), fold.ordered) for fold in run.folds] for run in (first, second))
    tested = float(np.mean([len(fold.labels) for fold in first.folds]))
    found = {}
    for name in one[0]:
        differences = [float(b - a) for left, right in zip(one, two) for a, b in zip(left[name], right[name])]
        found[name] = corrected_resampled_test(differences, tested, float(first.trained_on or 0))
    return found


def differences(runs: list[FinishedRun]) -> Iterable[dict[str, Any]]:
    """How often every two runs on the same images err where the other does not; a note where these are not the same."""
    for first, second in combinations(runs, 2):
        pair = {"first": first.name, "second": second.name}
        if not _same_images(first, second):
            yield pair | {"note": "not evaluated on the same images, so not compared"}
            continue
        labels = np.concatenate([fold.labels for fold in first.folds])
        # One prediction an image: of each fold's first seed.
        one, two = (np.concatenate([fold.predicted[0] for fold in run.folds]) for run in (first, second))
        yield pair | {
            "images": len(labels),
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
        return (
            {key: getattr(entry, key) for key in ("method", "initialisation", "source", "ours", "ranked")}
            | {
                "scores": entry.scores,
                "notes": entry.notes,
            }
            | ({"by_class": entry.by_class} if entry.ours else {})
            | ({"clinical": entry.clinical.to_dict()} if entry.clinical else {})
        )

    return {
        "explanation": EXPLANATION,
        "tables": [
            {
                "title": table.title,
                "rows": [row(entry) for entry in table.rows],
                "not_comparable": [row(entry) for entry in table.apart],
                "comparisons": table.comparisons,
                "differences": table.differences,
                "notes": table.notes,
            }
            for table in found
        ],
    }
