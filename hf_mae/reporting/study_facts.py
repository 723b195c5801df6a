"""Facts about a study, as variables of the templates: what its records say was done."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.cohort import Cohort
from ..evaluation.agreement import Agreement
from ..inference.tta import NUM_VIEWS
from ..runs.completed_run import CompletedRun
from ..runs.record import RunRecord
from ..runs.training_facts import TrainedPart, Training
from ..settings.benchmarks import find_benchmark_or_none
from ..settings.models import RANDOM_WEIGHTS
from ..settings.training import INSTANCE_BALANCED
from .diagnostic_accuracy import PREDICTED_CLASS_RULE, DiagnosticAccuracy, OneVsRestResult
from .headline import score_title
from .results_tables import ResultsTable

SPLIT_TITLES = {
    "train": "training",
    "selection": "selection of the epoch",
    "validation": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class StudyAnalysis:
    """What a report computed for a run.

    Args:
        comparisons: tests between this run and others (`ResultsTable.comparisons`).
        margin_tests: the same for tests at a margin (`ResultsTable.margin_tests`).
        diagnostic_accuracy: None: not computed.
    """

    comparisons: list[dict[str, Any]]
    margin_tests: list[dict[str, Any]]
    diagnostic_accuracy: DiagnosticAccuracy | None = None

    @classmethod
    def from_tables(cls, run: CompletedRun, tables: Iterable[ResultsTable]) -> "StudyAnalysis":
        """Finds the results of a run in the tables of a report."""
        tables = list(tables)
        rows = [row for table in tables for row in [*table.rows, *table.not_comparable]]
        own = [row.diagnostic_accuracy for row in rows if row.ours and row.method == run.name]

        def select(pairs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
            return [pair for pair in pairs if run.name in (pair["first"], pair["second"])]

        return cls(
            select(pair for table in tables for pair in table.comparisons),
            select(pair for table in tables for pair in table.margin_tests),
            own[0] if own else None,
        )

    def others(self, name: str) -> list[str]:
        """Returns the names of the runs that a run was compared with."""
        pairs = [(pair["first"], pair["second"]) for pair in self.comparisons]
        return sorted({second if first == name else first for first, second in pairs})

    @property
    def results(self) -> list[OneVsRestResult]:
        """Results of classes against the rest."""
        return self.diagnostic_accuracy.one_vs_rest if self.diagnostic_accuracy else []

    @property
    def annotators(self) -> Agreement | None:
        """Agreement of the annotators of the images."""
        found = self.diagnostic_accuracy.annotator_agreement if self.diagnostic_accuracy else None
        return found.annotators if found else None

    def rules_by_split(self) -> dict[str, list[str]]:
        """Returns the rules of the thresholds by the split that they were chosen on; empty: given thresholds."""
        points = [point for result in self.results for point in result.operating_points]
        rules: dict[str, list[str]] = {}
        for point in points:
            found = rules.setdefault(point.threshold_split or "", [])
            found += [point.rule] if point.rule not in (PREDICTED_CLASS_RULE, *found) else []
        return {split: found for split, found in rules.items() if found}

    def tests(self) -> list[str]:
        """Returns the names of the tests between runs."""
        return sorted({pair["test"] for pair in self.comparisons})


class Trainings:
    """The trainings of a model: one, or those of folds, seeds or members of an ensemble.

    Args:
        records: of the runs.
    """

    def __init__(self, records: Sequence[RunRecord]):
        self.records = list(records)
        self.count = len(records)

    def values(self, path: str) -> list[Any]:
        """Returns the different values of a field of the records (`train.optimizer.name`), in their order; without
        None."""
        found = []
        for record in self.records:
            value: Any = record
            for name in path.split("."):
                value = None if value is None else getattr(value, name)
            if value is not None and value not in found:
                found.append(value)
        return found

    def all_trainings(self) -> list[Training]:
        """Returns the facts of each training."""
        return [record.train for record in self.records if record.train]

    def texts(self, path: str, describe: Callable[[Any], str]) -> list[str]:
        """Describes the different values of a field; equal descriptions count once."""
        return list(dict.fromkeys(map(describe, self.values(path))))

    def one(self, path: str) -> Any:
        """Returns the value of a field if all records have the same; otherwise None."""
        values = self.values(path)
        return values[0] if len(values) == 1 else None

    def span(self, path: str, number_format: str = "{:g}") -> str:
        """Formats a number: `3`, or the range `3 to 5` of several records."""
        texts = list(dict.fromkeys(number_format.format(value) for value in sorted(self.values(path))))
        return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]}"

    def join(self, path: str) -> str:
        """Lists the values of a field: `AdamW`, or `AdamW and SGD`."""
        return " and ".join(map(str, self.values(path)))


def study_facts(run: CompletedRun, analysis: StudyAnalysis) -> dict[str, Any]:
    """Returns the variables of the templates about a study."""
    evaluated = run.evaluated
    assert evaluated is not None, "the caller checks this"
    trained = run.trained[0] if run.trained else None
    is_evaluation = evaluated.kind == "evaluate"
    cohort, data_record = training_cohort(run), evaluated if evaluated.kind == "crossval" else trained
    return {
        "run": run,
        "analysis": analysis,
        "trained": trained,
        "evaluated": evaluated,
        "trainings": Trainings(run.trained),
        "data": data_record.data if data_record else None,
        "benchmark": find_benchmark_or_none(data_record.data.benchmark) if data_record else None,
        "classes": (data_record or evaluated).classes,
        "study": cohort,
        "images_by_split": count_images(cohort),
        "has_groups": cohort is not None and all(entry.groups for entry in cohort.splits.values()),
        "is_evaluation": is_evaluation,
        "evaluated_study": evaluated.study if is_evaluation else cohort,
        "num_evaluated": evaluated.images.get(run.split, run.num_images) if is_evaluation else run.num_images,
        "is_grouped": all(fold.groups is not None for fold in run.folds),
        "crossval": evaluated.crossval,
        "num_folds": len({result.run.fold for result in evaluated.crossval.runs}) if evaluated.crossval else 0,
        "num_seeds": len({result.run.seed for result in evaluated.crossval.runs}) if evaluated.crossval else 0,
        "base_names": [Path(base).name for base in Trainings(run.trained).values("base")],
        "num_stopped": sum(train.stopped_early for train in Trainings(run.trained).all_trainings()),
        "score_title": score_title,
        "costs": analysis.diagnostic_accuracy.expected_costs if analysis.diagnostic_accuracy else [],
        "annotators": analysis.annotators,
        "texts": Trainings(run.trained).texts,
        "columns": sorted({name for part in (cohort, evaluated.study) if part for name in part.columns}),
        "pluralize_text": pluralize_text,
        "file_name": lambda path: Path(path).name,
        "number_list": lambda numbers: " ".join(f"{number:g}" for number in numbers),
        "NUM_VIEWS": NUM_VIEWS,
        "RANDOM_WEIGHTS": RANDOM_WEIGHTS,
        "INSTANCE_BALANCED": INSTANCE_BALANCED,
        "TrainedPart": TrainedPart,
    }


def training_cohort(run: CompletedRun) -> Cohort | None:
    """Returns the images of the training, or of all folds of a cross-validation; None: unknown."""
    if run.evaluated is not None and run.evaluated.kind == "crossval":
        return run.evaluated.study
    return run.trained[0].study if run.trained else None


def count_images(cohort: Cohort | None) -> dict[str, int]:
    """Returns the number of images by title of the split."""
    splits = cohort.splits if cohort else {}
    return {SPLIT_TITLES.get(split, split): entry.images for split, entry in splits.items()}


def pluralize_text(number: str, noun: str) -> str:
    """Formats a number that is text, or a range, with its noun: `1 epoch`, `3 to 5 epochs`."""
    return f"{number} {noun}{'' if number == '1' else 's'}"
