"""Tables and result lines that commands print on the terminal."""

from collections.abc import Mapping
from dataclasses import fields
from datetime import date
from typing import Any

import numpy as np
from datasets import Dataset

from ..data.images.cache_eviction import format_bytes
from ..errors import pluralize
from ..files.caches import cache_folder
from ..models.model_zoo import PublicCheckpoint, load_checkpoint_catalogue
from ..runs.record import FIGURES_DIR, RunRecord, Scores
from ..runs.record_io import read_record
from .document import Block, BulletList, Paragraph
from .headline import HeadlineRow, headline_table, repeated_scores, split_scores, split_table
from .label_issues import SHEET_PATTERN, LabelFindings
from .renderers import terminal
from .renderers.terminal import format_fields, wrap_text
from .run_sentences import describe_undefined_scores
from .table import Column, Table, number_columns


def build_scores_summary(scores_by_split: Mapping[str, Scores]) -> list[Block]:
    """Builds the closing table of a run, one column per split, and the notes on zero denominators."""
    if not scores_by_split:
        return []
    notes = [
        Paragraph(f"{split}: {note}")
        for split, scores in scores_by_split.items()
        for note in describe_undefined_scores(scores)
    ]
    return [split_table(scores_by_split).transpose(), *notes]


def class_table(splits: Mapping[str, Dataset]) -> Table:
    """Builds the table of the number of images of each class in each split."""
    names = next(iter(splits.values())).features["labels"].names
    counts = [np.bincount(dataset["labels"][:], minlength=len(names)).tolist() for dataset in splits.values()]
    rows = [[name, *of_class] for name, *of_class in zip(names, *counts)]
    return Table([Column("class"), *number_columns(list(splits))], [*rows, ["all", *map(sum, counts)]])


def build_crossval_summary(record: RunRecord, folder: str) -> list[Block]:
    """Builds the scores of the runs of a cross-validation, and their mean and standard deviation."""
    summary = record.crossval
    assert summary is not None, "the record of a cross-validation has a summary"
    several = len(summary.label_efficiency) > 1
    rows, first = [], 0 if several else 1
    for run in (result.run for result in summary.runs):
        scores = read_record(f"{folder}/{run.folder}").scores["validation"]
        labels = [f"{100 * run.fraction:g} %", run.seed, run.fold, scores["num_images"]]
        rows.append(HeadlineRow(labels[first:], split_scores(scores | {"intervals": {}})))
    points = [
        HeadlineRow([f"{100 * point['fraction']:g} % of the labels", f"{point['images']:g}"], repeated_scores(point))
        for point in summary.label_efficiency
    ]
    runs_per_point = pluralize(len(rows) // len(points), "run")
    each = f" for each of {len(points)} fractions of the labels" if several else ""
    return [
        headline_table(number_columns(["labels", "seed", "fold", "images"][first:]), rows),
        headline_table([Column(""), Column("training images", "r")], points).transpose(),
        Paragraph(f"Mean ± standard deviation over {runs_per_point}{each}."),
        Paragraph(f"The runs and crossval.json are in {folder}."),
    ]


def build_probe_summary(record: RunRecord) -> list[Block]:
    """Builds the scores of the probes, one row per pooling and kind of probe."""
    results = dict(record.probe or {})
    split_by_role = results.pop("split_by_role")
    roles = [f"{role}: {pluralize(record.images[role], 'image')} ({split})" for role, split in split_by_role.items()]
    rows = [
        HeadlineRow([pooling, kind], split_scores(scores))
        for pooling, kinds in results.items()
        for kind, scores in kinds.items()
    ]
    return [Paragraph("; ".join(roles)), headline_table([Column("features"), Column("probe")], rows)]


def build_label_findings(findings: LabelFindings) -> list[Block]:
    """Builds the result of an audit of labels, and the next steps."""
    blocks: list[Block] = [
        Paragraph(
            f"{findings.num_evaluated_images} of {pluralize(findings.num_images, 'image')} were classified by models "
            f"that were not trained on them: {pluralize(len(findings.issues), 'label')} may be wrong."
        ),
        BulletList(
            [
                f"{issue.image.file_name}: labelled {issue.image.label}, predicted {issue.suggested_label} "
                f"({issue.suggested_label_score:.2f})"
                for issue in findings.issues[:5]
            ]
        ),
    ]
    if findings.num_shown < len(findings.issues):
        blocks.append(Paragraph(f"The contact sheets show the first {findings.num_shown} of them (--max_sheets)."))
    sheets = findings.folder / FIGURES_DIR / SHEET_PATTERN.format("*")
    blocks.append(
        Paragraph(
            f"Look through {sheets}, fill the column decision of {findings.csv_path} (keep, remove, or the right "
            f"class), and train with --corrections {findings.csv_path}."
        )
    )
    return blocks


def format_model_zoo() -> str:
    """Formats the list of public checkpoints."""
    lines = []
    for entry in load_checkpoint_catalogue().values():
        lines.append(
            f"{entry.name:32}{entry.architecture:10}{'mask ' + entry.mask_ratio:11}{entry.megabytes:>5} MB  "
            f"{entry.licence}"
        )
        lines.append(wrap_text(f"    {entry.layout}; {entry.stage}", 4))
    lines.append(
        wrap_text(
            "mask: mask ratio of the pre-training. Sizes are estimates from the layout. Pass a name as "
            "--model_name_or_path."
        )
    )
    return "\n".join(lines)


def format_checkpoint(entry: PublicCheckpoint) -> str:
    """Formats the entry of a public checkpoint."""
    values = [(item.name, getattr(entry, item.name)) for item in fields(entry)]
    lines = [(name, value) for name, value in values if value]
    return format_fields([*lines, ("page", entry.page_url), ("converted to", entry.converted_path)])


def format_cache_result(action: str, result: Any) -> str:
    """Formats the output of `hf-mae cache`.

    Args:
        action: `list`, `check` or `remove`.
        result: the return value of `workflows.cache.cache`.
    """
    if action == "remove":
        return f"Freed {format_bytes(result)}."
    if action == "check":
        summary = f"Removed {pluralize(len(result), 'damaged file')}." if result else "No cached file is damaged."
        return "\n".join([*result, summary])
    if not result:
        return f"The cache {cache_folder()} is empty."
    rows = [
        [entry.name, format_bytes(entry.size), entry.num_images, date.fromtimestamp(entry.last_used).isoformat()]
        for entry in result
    ]
    table = Table([Column("name"), *number_columns(["size", "images"]), Column("last used")], rows)
    lines = terminal.render([table]).split("\n")
    for index, entry in enumerate(result):
        lines.insert(2 * index + 2, wrap_text(f"    {entry.description}", 4))
    total = format_bytes(sum(entry.size for entry in result))
    return "\n".join([*lines, f"{total} in {cache_folder()}"])
