"""Tables and result lines that commands print on the terminal, at most 80 columns wide."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import date
from typing import Any

import numpy as np
from datasets import Dataset

from ..data.images.cache_eviction import format_bytes
from ..errors import pluralize
from ..evaluation.metrics import available_metric_names, display_scale, headline_metric_names
from ..files.caches import cache_folder
from ..models.model_zoo import PublicCheckpoint, load_checkpoint_catalogue
from ..runs.record import FIGURES_DIR, RunRecord, Scores
from ..runs.record_io import read_record
from ..settings.metrics import METRICS
from .build_report import comparison_cells, format_score
from .label_issues import SHEET_PATTERN, LabelFindings
from .results_tables import ResultsTable
from .run_sentences import describe_undefined_scores
from .text_table import format_fields, format_table, truncate_middle, wrap_text

SPLITS_PER_TABLE = 3  # columns of scores with intervals that fit
MAX_METHOD_WIDTH = 20  # characters of the name of a method


def format_scores_table(scores_by_split: Mapping[str, Scores]) -> str:
    """Formats the headline scores in per cent with their 95 % intervals, one column per split, and the notes on zero
    denominators."""
    names = available_metric_names(next(iter(scores_by_split.values()), {}))
    splits, lines = list(scores_by_split.items()), []
    for start in range(0, len(splits), SPLITS_PER_TABLE):
        shown = splits[start : start + SPLITS_PER_TABLE]
        rows = [["images", *(str(scores["num_images"]) for _, scores in shown)]]
        rows += [[METRICS[name].title, *(_format_score(scores, name) for _, scores in shown)] for name in names]
        lines.append(format_table(["", *(split for split, _ in shown)], rows, "l" + "r" * len(shown)))
    if any("[" in line for line in lines):
        lines.append("[ ]: 95 % interval")
    for split, scores in splits:
        lines += [wrap_text(f"{split}: {note}", 2) for note in describe_undefined_scores(scores)]
    return "\n".join(lines)


def _format_score(scores: Scores, name: str) -> str:
    if scores.get(name) is None:
        return ""
    scale = display_scale(name)
    interval = scores.get("intervals", {}).get(name)
    digits = 1 if scale == 100.0 else 2
    text = "" if interval is None else " [{0:.{2}f}, {1:.{2}f}]".format(*(scale * end for end in interval), digits)
    return f"{scale * scores[name]:.2f}{text}"


def _metric_columns(names: Sequence[str]) -> list[str]:
    """Returns the headers of the columns of metrics, in two lines; with more than five columns, the short ones."""
    is_narrow = len(names) > 5
    titles = [(is_narrow and METRICS[name].short_title) or METRICS[name].title for name in names]
    return [title.replace(" ", "\n", 1) for title in titles]


def format_results(tables: Iterable[ResultsTable]) -> str:
    """Formats the results tables of a report: one column per method, and one row per comparison of two runs."""
    lines: list[str] = []
    for table in tables:
        rows = [*table.rows, *table.not_comparable]
        names = [name for name in METRICS if any(name in row.scores for row in rows)]
        columns = 2 if any(score.get("std") is not None for row in rows for score in row.scores.values()) else 3
        lines += ["", wrap_text(table.title)]
        for start in range(0, len(rows), columns):
            block = rows[start : start + columns]
            header = ["", *(truncate_middle(row.method, MAX_METHOD_WIDTH) for row in block)]
            body = [
                [METRICS[name].title, *(format_score(row.scores.get(name), name) for row in block)] for name in names
            ]
            lines += ["", format_table(header, body, "l" + "r" * len(block))]
        if any(row.ours for row in rows):
            lines.append("[ ]: 95 % interval")
        for comparison in table.comparisons:
            first, second, score, difference, _, p_adjusted, _ = comparison_cells(comparison)
            text = f"{score}, {second} minus {first}: {difference}, p {p_adjusted} (adjusted)"
            lines.append(wrap_text(text, 2))
    return "\n".join(lines).lstrip("\n")


def format_class_table(splits: Mapping[str, Dataset]) -> str:
    """Formats the number of images of each class in each split."""
    names = next(iter(splits.values())).features["labels"].names
    counts = {split: np.bincount(dataset["labels"][:], minlength=len(names)) for split, dataset in splits.items()}
    rows = [[name, *(str(by_class[index]) for by_class in counts.values())] for index, name in enumerate(names)]
    rows.append(["all", *(str(by_class.sum()) for by_class in counts.values())])
    return format_table(["class", *counts], rows, "l" + "r" * len(counts))


def format_crossval_table(record: RunRecord, folder: str) -> str:
    """Formats the scores of the runs of a cross-validation, and their mean and standard deviation."""
    summary = record.crossval
    assert summary is not None, "the record of a cross-validation has a summary"
    names, several = available_metric_names(summary.mean_and_std), len(summary.label_efficiency) > 1
    rows = []
    for run in (result.run for result in summary.runs):
        scores = read_record(f"{folder}/{run.folder}").scores["validation"]
        values = [_format_score({name: scores.get(name)}, name) for name in names]
        rows.append([f"{100 * run.fraction:g} %", str(run.seed), str(run.fold), str(scores["num_images"]), *values])
    header = ["labels", "seed", "fold", "images", *_metric_columns(names)]
    first = 0 if several else 1
    lines = [format_table(header[first:], [row[first:] for row in rows], "r" * len(header[first:]))]
    for point in summary.label_efficiency:
        if several:
            lines.append(f"{100 * point['fraction']:g} % of the labels ({point['images']:g} images):")
        lines += [
            f"{METRICS[name].title:>16}  {display_scale(name) * point[name]['mean']:.2f} ± "
            f"{display_scale(name) * point[name]['std']:.2f}"
            for name in names
        ]
    count = pluralize(len(summary.runs) // len(summary.label_efficiency), "run")
    each = f" for each of {len(summary.label_efficiency)} fractions of the labels" if several else ""
    lines.append(f"Mean ± standard deviation over {count}{each}.")
    lines.append(f"The runs and crossval.json are in {folder}.")
    return "\n".join(lines)


def format_probe_table(record: RunRecord) -> str:
    """Formats the scores of the probes, one row per pooling and kind of probe."""
    results = dict(record.probe or {})
    split_by_role = results.pop("split_by_role")
    names = headline_metric_names(ordered=False)
    roles = [f"{role}: {pluralize(record.images[role], 'image')} ({split})" for role, split in split_by_role.items()]
    lines = [wrap_text("; ".join(roles))]
    rows = [
        [pooling, kind, *(_format_score({name: scores.get(name)}, name) for name in names)]
        for pooling, kinds in results.items()
        for kind, scores in kinds.items()
    ]
    lines.append(format_table(["features", "probe", *_metric_columns(names)], rows, "ll" + "r" * len(names)))
    return "\n".join(lines)


def format_label_findings(findings: LabelFindings) -> str:
    """Formats the result of an audit of labels, and the next steps."""
    lines = [
        wrap_text(
            f"{findings.num_evaluated_images} of {pluralize(findings.num_images, 'image')} were classified by models "
            f"that were not trained on them: {pluralize(len(findings.issues), 'label')} may be wrong."
        )
    ]
    for issue in findings.issues[:5]:
        lines.append(
            f"  {issue.image.file_name}: labelled {issue.image.label}, predicted {issue.suggested_label} "
            f"({issue.suggested_label_score:.2f})"
        )
    if findings.num_shown < len(findings.issues):
        lines.append(f"The contact sheets show the first {findings.num_shown} of them (--max_sheets).")
    lines.append(
        wrap_text(
            f"Look through {findings.folder / FIGURES_DIR / SHEET_PATTERN.format('*')}, fill the column decision of "
            f"{findings.csv_path} (keep, remove, or the right class), and train with "
            f"--corrections {findings.csv_path}."
        )
    )
    return "\n".join(lines)


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
    rows = []
    for entry in result:
        images = "" if entry.num_images is None else str(entry.num_images)
        last_used = date.fromtimestamp(entry.last_used).isoformat()
        rows.append([entry.name, format_bytes(entry.size), images, last_used])
    lines = format_table(["name", "size", "images", "last used"], rows, "lrrl").split("\n")
    for index, entry in enumerate(result):
        lines.insert(2 * index + 2, wrap_text(f"    {entry.description}", 4))
    total = format_bytes(sum(entry.size for entry in result))
    return "\n".join([*lines, f"{total} in {cache_folder()}"])
