"""Description of a study from the records of its runs: flow of the images, images by split, and methods with citations.

The sentences are in `templates/methods.yaml`. Facts that the records do not contain are omitted.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.cohort import Cohort
from ..files.atomic import write_text
from ..runs.completed_run import CompletedRun
from ..runs.record import FIGURES_DIR, RunRecord
from ..settings.benchmarks import find_benchmark_or_none
from ..settings.metrics import METRICS, MetricKind, metric_names
from .bibliography import format_bibtex
from .document import Block, Heading, Paragraph
from .figures.study import plot_flow_diagram
from .renderers.files import write_document
from .results_tables import ResultsTable
from .run_sentences import describe_exclusion, describe_loss
from .study_facts import SPLIT_TITLES, StudyAnalysis, Trainings, study_facts, training_cohort
from .table import Column, Table, number_columns
from .text_templates import load_templates, render_text

POOLING_TITLES = {"mean": "the mean of the patch tokens", "cls": "the class token"}


def write_study_description(
    run: CompletedRun, folder: Path, suffix: str = "", tables: Sequence[ResultsTable] = ()
) -> list[str]:
    """Writes `study.md`, `.tex` (and `.docx`), `study.bib` and the figures `figures/flow` and, for images of an
    evaluation, `figures/flow_evaluation`.

    Args:
        suffix: part of the file names, to distinguish several runs.
        tables: of the report, which contain the tests between runs.

    Returns:
        The names of the files; none if no record describes the images.
    """
    cohorts = list_cohorts(run)
    if not cohorts:
        return []
    blocks, keys = build_study_description(run, tables)
    write_text(folder / f"study{suffix}.bib", format_bibtex(keys, _data_citation(run)))
    figures = []
    for title, cohort in cohorts.items():
        part = "_evaluation" if title == EVALUATION and len(cohorts) > 1 else ""
        figures.append(f"{FIGURES_DIR}/flow{part}{suffix}")
        plot_flow_diagram(cohort, folder / figures[-1])
    names = write_document(blocks, folder / f"study{suffix}", [folder / f"{figure}.png" for figure in figures])
    return [*names, f"study{suffix}.bib", *(f"{figure}.png" for figure in figures)]


def build_study_description(run: CompletedRun, tables: Sequence[ResultsTable] = ()) -> tuple[list[Block], list[str]]:
    """Builds the document; returns it with the keys of its references."""
    methods, keys = _describe_methods(run, StudyAnalysis.from_tables(run, tables))
    references = ", ".join([*keys, *(["data"] if _data_citation(run) else [])])
    cohorts = list_cohorts(run)
    images: list[Block] = []
    for title, cohort in cohorts.items():
        addition = f" ({title})" if len(cohorts) > 1 else ""
        images += [_flow_table(cohort, addition), _table_one(cohort, addition)]
    blocks: list[Block] = [
        Heading(f"The study of {run.name}", 1),
        Heading("Images"),
        *images,
        Heading("Methods"),
        *[Paragraph(text) for text in methods if text],
        Heading("References"),
        Paragraph(f"BibTeX entries are in the accompanying .bib file: {references}."),
    ]
    return blocks, keys


# Images

TRAINING, EVALUATION = "training", "evaluation"


def list_cohorts(run: CompletedRun) -> dict[str, Cohort]:
    """Lists the images of the training, and those of an evaluation that has its own record."""
    cohorts = {TRAINING: training_cohort(run)}
    if run.evaluated is not None and run.evaluated.kind == "evaluate":
        cohorts[EVALUATION] = run.evaluated.study
    return {title: cohort for title, cohort in cohorts.items() if cohort is not None}


def _flow_table(cohort: Cohort, addition: str) -> Table:
    rows: list[list[str]] = [["found", str(cohort.total if cohort.total is not None else "not known"), ""]]
    for step in cohort.excluded:
        rows.append([f"excluded: {describe_exclusion(step)}", str(step.images), ", ".join(step.examples)])
    if relabelled := cohort.relabelled:
        rows.append(["label corrected", str(relabelled.images), f"according to {relabelled.source_file}"])
    for split, entry in cohort.splits.items():
        groups = f"{entry.groups} patients or videos" if entry.groups else "patients not known"
        rows.append([SPLIT_TITLES.get(split, split), str(entry.images), groups])
    columns = [Column("images"), Column("number", "r"), Column("remarks")]
    return Table(columns, rows, f"Flow of the images{addition}:")


def _table_one(cohort: Cohort, addition: str) -> Table:
    """Builds the table of images by split, class and column of the manifest ("Table 1")."""
    splits = cohort.splits
    totals = [entry.images for entry in splits.values()]
    rows = [["images", *map(str, totals)]]
    if any(entry.groups for entry in splits.values()):
        rows.append(["patients or videos", *(str(entry.groups or "not known") for entry in splits.values())])
    for name in next(iter(splits.values())).classes:
        counts = [entry.classes[name] for entry in splits.values()]
        rows.append([f"class: {name}", *map(_format_count, counts, totals)])
    for column, by_split in cohort.columns.items():
        for value in next(iter(by_split.values())):
            counts = [by_split[split].get(value, 0) for split in splits]
            rows.append([f"{column}: {value}", *map(_format_count, counts, totals)])
    columns = [Column(""), *number_columns([SPLIT_TITLES.get(split, split) for split in splits])]
    return Table(columns, rows, f"Images by split{addition}, number (per cent):")


def _format_count(count: int, total: int) -> str:
    return f"{count} ({100 * count / total:.1f})" if total else "0"


# Methods


def _describe_methods(run: CompletedRun, analysis: StudyAnalysis) -> tuple[list[str], list[str]]:
    """Describes the methods in paragraphs; returns them with the keys of their references."""
    references: dict[str, None] = {}

    def cite(*keys: str) -> str:
        references.update(dict.fromkeys(keys))
        return f"[{'; '.join(f'@{key}' for key in keys)}]"

    trainings, diagnostic = Trainings(run.trained), analysis.diagnostic_accuracy
    facts = study_facts(run, analysis) | {
        "cite": cite,
        "pooling": POOLING_TITLES.get(trainings.one("model.pooling") or ""),
        "list_metrics": list_metrics,
        "MetricKind": MetricKind,
        "losses": trainings.texts("train.objective", lambda objective: describe_loss(objective, cite)),
        "one_vs_rest": [" or ".join(result.classes) for result in analysis.results],
        "subgroups": diagnostic.subgroups if diagnostic else [],
    }
    return [render_text(template, facts) for template in load_templates("methods").values()], list(references)


def list_metrics(kind: MetricKind, cite: Any = None) -> str:
    """Lists the metrics of a kind, with their references."""
    metrics = [METRICS[name] for name in metric_names(kind)]
    texts = [
        (metric.methods or metric.title) + (f" {cite(metric.citation.key)}" if cite and metric.citation else "")
        for metric in metrics
    ]
    return f"{', '.join(texts[:-1])} and {texts[-1]}"


def _data_citation(run: CompletedRun) -> str:
    record: RunRecord | None = run.trained[0] if run.trained else run.evaluated
    entry = find_benchmark_or_none(record.data.benchmark) if record else None
    return entry.citation if entry else ""
