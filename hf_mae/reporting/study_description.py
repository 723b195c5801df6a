"""Description of a study from the record of its run: flow of the images, images by split, and methods with citations.

The sentences are in `templates/methods.yaml`. Facts that the record does not contain are omitted.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

from ..data.cohort import Cohort
from ..files.atomic import write_text
from ..runs.completed_run import CompletedRun
from ..runs.record import FIGURES_DIR, RunRecord
from ..settings.benchmarks import find_benchmark_or_none
from ..settings.commands import command_options
from ..settings.losses import LOSSES, SMOOTHING
from ..settings.metrics import METRICS, MetricKind, metric_names
from ..settings.models import RANDOM_WEIGHTS
from ..settings.training import INSTANCE_BALANCED
from .bibliography import format_bibtex
from .document import Block, Heading, Paragraph
from .figures.study import plot_flow_diagram
from .renderers.files import write_document
from .run_sentences import describe_exclusion
from .table import Column, Table, number_columns
from .text_templates import load_templates, render_text

SPLIT_TITLES = {
    "train": "training",
    "selection": "selection of the epoch",
    "validation": "validation",
    "test": "test",
}


def write_study_description(run: CompletedRun, folder: Path, suffix: str = "") -> list[str]:
    """Writes `study.md`, `.tex` (and `.docx`), `study.bib` and the figure `figures/flow`.

    Args:
        suffix: part of the file names, to distinguish several runs.

    Returns:
        The names of the files; none if the record does not describe the images.
    """
    if run.record is None or run.record.study is None:
        return []
    blocks, keys = build_study_description(run)
    write_text(folder / f"study{suffix}.bib", format_bibtex(keys, _data_citation(run.record)))
    figure = f"{FIGURES_DIR}/flow{suffix}"
    plot_flow_diagram(run.record.study, folder / figure)
    names = write_document(blocks, folder / f"study{suffix}", [folder / f"{figure}.png"])
    return [*names, f"study{suffix}.bib", f"{figure}.png"]


def build_study_description(run: CompletedRun) -> tuple[list[Block], list[str]]:
    """Builds the document; returns it with the keys of its references."""
    record = run.record
    assert record is not None and record.study is not None, "the caller checks this"
    methods, keys = _describe_methods(run, record)
    references = ", ".join([*keys, *(["data"] if _data_citation(record) else [])])
    blocks: list[Block] = [
        Heading(f"The study of {run.name}", 1),
        Heading("Images"),
        _flow_table(record.study),
        _table_one(record.study),
        Heading("Methods"),
        *[Paragraph(text) for text in methods],
        Heading("References"),
        Paragraph(f"BibTeX entries are in the accompanying .bib file: {references}."),
    ]
    return blocks, keys


# Images


def _flow_table(cohort: Cohort) -> Table:
    rows: list[list[str]] = [["found", str(cohort.total if cohort.total is not None else "not known"), ""]]
    for step in cohort.excluded:
        rows.append([f"excluded: {describe_exclusion(step)}", str(step.images), ", ".join(step.examples)])
    if relabelled := cohort.relabelled:
        rows.append(["label corrected", str(relabelled.images), f"according to {relabelled.source_file}"])
    for split, entry in cohort.splits.items():
        groups = f"{entry.groups} patients or videos" if entry.groups else "patients not known"
        rows.append([SPLIT_TITLES.get(split, split), str(entry.images), groups])
    columns = [Column("images"), Column("number", "r"), Column("remarks")]
    return Table(columns, rows, "Flow of the images:")


def _table_one(cohort: Cohort) -> Table:
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
    return Table(columns, rows, "Images by split, number (per cent):")


def _format_count(count: int, total: int) -> str:
    return f"{count} ({100 * count / total:.1f})" if total else "0"


# Methods


def _describe_methods(run: CompletedRun, record: RunRecord) -> tuple[list[str], list[str]]:
    """Describes the methods in paragraphs; returns them with the keys of their references."""
    references: dict[str, None] = {}

    def cite(*keys: str) -> str:
        references.update(dict.fromkeys(keys))
        return f"[{'; '.join(f'@{key}' for key in keys)}]"

    pooling, image_size = _get_pooling_and_size(run, record)
    facts = study_facts(run, record) | {
        "cite": cite,
        "pooling": pooling,
        "image_size": image_size,
        "list_metrics": _list_metrics,
        "MetricKind": MetricKind,
        "describe_loss": _describe_loss,
        "smoothing_is_supported": SMOOTHING in LOSSES[get_setting(record, "loss")].supports,
        "INSTANCE_BALANCED": INSTANCE_BALANCED,
    }
    return [render_text(template, facts) for template in load_templates("methods").values()], list(references)


def study_facts(run: CompletedRun, record: RunRecord) -> dict[str, Any]:
    """Returns the variables of the templates about a study: facts of its record, with the images by split."""
    assert record.study is not None, "the caller checks this"
    splits = record.study.splits
    return {
        "run": run,
        "record": record,
        "study": record.study,
        "images_by_split": {SPLIT_TITLES.get(split, split): entry.images for split, entry in splits.items()},
        "all_splits_have_groups": all(entry.groups for entry in splits.values()),
        "benchmark": find_benchmark_or_none(record.data.benchmark),
        "setting": partial(get_setting, record),
        "is_grouped": all(fold.groups is not None for fold in run.folds),
        "is_random": record.base == RANDOM_WEIGHTS,
        "base_name": Path(record.base).name,
    }


def get_setting(record: RunRecord, name: str) -> Any:
    """Returns a setting of the run, or its default."""
    if name in record.settings:
        return record.settings[name]
    options = command_options(record.kind if record.kind != "evaluate" else "finetune")
    return options[name].default if name in options else None


def _get_pooling_and_size(run: CompletedRun, record: RunRecord) -> tuple[str, int | None]:
    """Returns the features that the head classifies, and the image size, from the configuration of the run if it has
    one."""
    titles = {"mean": "the mean of the patch tokens", "cls": "the class token"}
    if record.network:
        return "", get_setting(record, "image_size")
    try:
        config = json.loads((run.folder / "config.json").read_text(encoding="utf-8"))
        mean = "BeitForImageClassification" in config["architectures"]
        return titles["mean" if mean else "cls"], int(config["image_size"])
    except (OSError, ValueError, KeyError, TypeError):  # a cross-validation has no configuration
        return titles.get(str(get_setting(record, "pooling")), ""), get_setting(record, "image_size")


def _describe_loss(record: RunRecord, cite: Any) -> str:
    loss = LOSSES[get_setting(record, "loss")]
    parameters = {name: float(get_setting(record, name)) for name in loss.parameters}
    return loss.methods.format(cite=cite(loss.citation.key) if loss.citation else "", **parameters)


def _list_metrics(kind: MetricKind, cite: Any) -> str:
    """Lists the metrics of a kind with their references."""
    metrics = [METRICS[name] for name in metric_names(kind)]
    texts = [
        (metric.methods or metric.title) + (f" {cite(metric.citation.key)}" if metric.citation else "")
        for metric in metrics
    ]
    return f"{', '.join(texts[:-1])} and {texts[-1]}"


def _data_citation(record: RunRecord) -> str:
    entry = find_benchmark_or_none(record.data.benchmark)
    return entry.citation if entry else ""
