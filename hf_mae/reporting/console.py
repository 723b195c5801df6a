"""Results of commands as documents, which the terminal shows: `build_COMMAND`, and the tables that they share.

Each takes the result of the workflow and the explicit values of the command, by name of the option.
"""

from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from ..data.images.cache_eviction import format_bytes
from ..errors import pluralize
from ..evaluation.metrics import display_scale
from ..files.caches import cache_folder
from ..runs.record import FIGURES_DIR, RunRecord, Scores
from ..runs.record_io import read_record
from ..settings.metrics import metric_title
from .audit import describe_pair_kind
from .build_report import build_report_summary
from .centres import centre_table
from .document import Block, BulletList, Code, Paragraph
from .headline import HeadlineRow, headline_table, repeated_scores, split_scores, split_table
from .label_issues import SHEET_PATTERN, LabelFindings
from .run_sentences import describe_calibration_gain, describe_ppv_at_recall, describe_undefined_scores
from .table import Column, Number, Table, fields_table, number_columns

Values = Mapping[str, Any]


def build_scores_summary(scores_by_split: Mapping[str, Scores]) -> list[Block]:
    """Builds the closing table of a run, one column per split, and the notes on zero denominators."""
    if not scores_by_split:
        return []
    notes = [
        Paragraph(f"{split}: {note}")
        for split, scores in scores_by_split.items()
        for note in describe_undefined_scores(scores)
    ]
    ppv = [
        Paragraph(f"{split}: {describe_ppv_at_recall(result)}")
        for split, scores in scores_by_split.items()
        for result in scores.get("ppv", [])
    ]
    return [split_table(scores_by_split).transpose(), *ppv, *notes]


def class_table(splits: Mapping[str, Dataset]) -> Table:
    """Builds the table of the number of images of each class in each split."""
    names = next(iter(splits.values())).features["labels"].names
    counts = [np.bincount(dataset["labels"][:], minlength=len(names)).tolist() for dataset in splits.values()]
    rows = [[name, *of_class] for name, *of_class in zip(names, *counts)]
    return Table([Column("class"), *number_columns(list(splits))], [*rows, ["all", *map(sum, counts)]])


def build_crossval(record: RunRecord, values: Values) -> list[Block]:
    """Builds the scores of the runs of a cross-validation, and their mean and standard deviation."""
    summary, folder = record.crossval, record.settings["output_dir"]
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
    centres = [centre_table(summary.by_centre)] if summary.by_centre else []
    runs_per_point = pluralize(len(rows) // len(points), "run")
    each = f" for each of {len(points)} fractions of the labels" if several else ""
    return [
        headline_table(number_columns(["labels", "seed", "fold", "images"][first:]), rows),
        headline_table([Column(""), Column("training images", "r")], points).transpose(),
        Paragraph(f"Mean ± standard deviation over {runs_per_point}{each}."),
        *centres,
        Paragraph(f"The runs and crossval.json are in {folder}."),
    ]


def build_probe_summary(record: RunRecord) -> list[Block]:
    """Builds the scores of the probes, one row per pooling and kind of probe."""
    splits = record.probe_splits.items()
    roles = [f"{role}: {pluralize(record.images[role], 'image')} ({split})" for role, split in splits]
    rows = [
        HeadlineRow([pooling, kind], split_scores(scores))
        for pooling, kinds in record.probe.items()
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


# Results of commands


def build_finetune(result: Any, values: Values) -> list[Block]:
    """Builds the scores of a fine-tuning run and the next commands, or its plan (`--dry_run`)."""
    if not isinstance(result, RunRecord):
        from .plan_summary import build_plan_summary

        return build_plan_summary(result)
    from ..conversion.stock_models import read_config
    from ..models.introspection import is_vit

    folder = result.settings["output_dir"]
    commands = [f"hf-mae predict {folder} IMAGES", f"hf-mae report {folder}"]
    if is_vit(read_config(folder)):
        commands.append(f"hf-mae explain {folder} IMAGES --output_dir OUTPUT_DIR")
    return [
        *build_scores_summary(result.scores),
        Paragraph(f"The model, its card, predictions and figures are in {folder}. Next:"),
        Code("\n".join(commands)),
    ]


def build_pretrain(record: RunRecord, values: Values) -> list[Block]:
    """Builds the folder of the pre-trained model and the next command."""
    folder = record.settings["output_dir"]
    return [Paragraph(f"The pre-trained model is in {folder}. Next: hf-mae finetune {folder} DATA")]


def build_search(result: Any, values: Values) -> list[Block]:
    """Builds the table of the five best trials, and the scores of the model trained with the best."""
    best = sorted(result.trials, key=lambda trial: trial.score, reverse=result.greater_is_better)[:5]
    title, scale = metric_title(result.metric), display_scale(result.metric)
    rows = [
        [Number(scale * trial.score), trial.number + 1, *(f"{value:.4g}" for value in trial.values.values())]
        + ["pruned" if trial.pruned else ""]
        for trial in best
    ]
    blocks: list[Block] = [
        Paragraph(f"{title} on the selection split, best of {pluralize(len(result.trials), 'trial')}:"),
        Table([*number_columns([title, "trial", *best[0].values]), Column("")], rows),
    ]
    return blocks + (build_finetune(result.record, values) if result.record else [])


def build_ensemble(result: Any, values: Values) -> list[Block]:
    """Builds the members of the ensemble and the next command."""
    size = f"{pluralize(len(result.sources), 'model')}, {pluralize(len(result.classes), 'class')}"
    return [
        fields_table((f"member {number}:", source) for number, source in enumerate(result.sources, 1)),
        Paragraph(f"Ensemble ({size}): {result.folder}"),
        Paragraph(f"Next: hf-mae evaluate {result.folder} DATA --split test --output_dir OUTPUT_DIR"),
    ]


def build_evaluate(record: RunRecord, values: Values) -> list[Block]:
    """Builds the scores of a split, and the gain of temperature scaling."""
    blocks = build_scores_summary(record.scores)
    if record.calibration:
        blocks.append(Paragraph(describe_calibration_gain(record.calibration, next(iter(record.scores)))))
        if record.calibration.fitted_on:
            blocks += [
                Paragraph("The temperature was fitted on these images, so these scores are optimistic."),
                Paragraph(f"To use it in evaluate and predict, pass --temperature {record.settings['output_dir']}."),
            ]
    return blocks


def build_report(result: Any, values: Values) -> list[Block]:
    """Builds the scores and comparisons of a report, and the names of its files."""
    return [
        *build_report_summary(result.comparison.tables),
        Paragraph(f"Classes, patients, operating points, subgroups and tests: {result.folder / 'report.md'}"),
        Paragraph(f"Written to {result.folder}: {', '.join(result.files)}"),
    ]


def build_explain(result: Any, values: Values) -> list[Block]:
    """Builds the files of the explanations."""
    blocks: list[Block] = []
    if values.get("images"):
        sheets = f"overlays and {pluralize(result.sheets, 'contact sheet')} (images_*.png) in {result.folder}"
        blocks.append(Paragraph(f"Explained {pluralize(result.num_explained, 'image')}: {sheets}"))
    if result.mistakes:
        mistakes = f"{pluralize(result.mistakes, 'mistake')} of {pluralize(result.classes, 'class')}"
        blocks.append(Paragraph(f"Most confident mistakes ({mistakes}): {result.mistakes_sheet}"))
    elif result.mistakes is not None:
        blocks.append(Paragraph(f"All {pluralize(result.images, 'image')} are classified correctly."))
    return blocks


def build_reconstruct(result: Any, values: Values) -> list[Block]:
    """Builds the file of the reconstructions."""
    images, percent = pluralize(result.images, "image"), f"{100 * result.mask_ratio:g} %"
    return [Paragraph(f"Reconstructed {images}, {percent} of the patches masked: {result.output}")]


def build_convert(report: Any, values: Values) -> list[Block]:
    """Builds the report of a conversion."""
    from .conversion_summary import build_conversion_summary

    written = Paragraph(f"Written to {values['output_dir']} (report: conversion.json)")
    return [*build_conversion_summary(report), written]


def build_export(sizes: Any, values: Values) -> list[Block]:
    """Builds the exported file, and how timm evaluates an exported folder."""
    output = values["output"]
    texts = [f"Written to {output}: width {sizes.hidden_size}, {sizes.num_hidden_layers} blocks"]
    if values.get("to") == "timm" and sizes.num_labels:
        class_map = f" --class-map {output}/class_map.txt" if (Path(output) / "class_map.txt").is_file() else ""
        flags = f"--model local-dir:{output} --pretrained{class_map}"
        texts.append(f"To evaluate it: timm's validate.py --data-dir DATA {flags}")
    return [Paragraph(text) for text in texts]


def build_export_onnx(result: Any, values: Values) -> list[Block]:
    """Builds the comparison with PyTorch, and the exported files."""
    checked = result.check_results
    data = f"{checked['data_dir']}, {checked['split']}" if checked["data_dir"] else "random noise"
    hint = "" if checked["data_dir"] else " (pass --data_dir to check on images)"
    rows = [
        [file, f"{size:.1f} MB", f"{checked[dtype]['largest_difference']:.2g}"]
        + [Number(100 * checked[dtype][name]) if name in checked[dtype] else None for name in ("agreement", "accuracy")]
        for dtype, (file, size) in zip(("float32", "int8"), result.sizes_mb.items())
    ]
    if "pytorch" in checked:
        rows.append(["PyTorch", None, None, None, Number(100 * checked["pytorch"]["accuracy"])])
    titles = ["size", "maximum logit difference", "same class, %", "accuracy, %"]
    columns = [Column("file"), *(Column(title, "r", title.replace("logit ", "logit\n")) for title in titles)]
    return [
        Paragraph(f"Checked on {checked['images']} images ({data}){hint}:"),
        Table(columns if "pytorch" in checked else columns[:-1], [row[: len(columns)] for row in rows]),
        Paragraph(f"Written to {result.folder}: the ONNX model, its labels, and example.py (inference without torch)"),
    ]


def build_push(url: str, values: Values) -> list[Block]:
    """Builds the address of the repository."""
    return [Paragraph(f"Pushed {values.get('model_name_or_path') or values['data_dir']} to {url}")]


def build_prepare(result: Any, values: Values) -> list[Block]:
    """Builds the class counts of the splits, and the mean and standard deviation of the pixels."""
    mean, std = (" ".join(f"{value:.4f}" for value in statistic) for statistic in (result.mean, result.std))
    return [class_table(result.splits), Paragraph(f"mean {mean}, std {std}")]


def build_audit(result: Any, values: Values) -> list[Block]:
    """Builds the near-duplicate pairs, or the label errors."""
    if isinstance(result, LabelFindings):
        return build_label_findings(result)
    pairs, images = pluralize(result.num_pairs, "near-duplicate pair"), pluralize(result.num_images, "image")
    found = f"Found {pairs} ({pluralize(result.num_images_in_pairs, 'image')}) in {images}."
    kinds, texts = result.pairs_by_kind, []
    if result.num_pairs_shown < result.num_pairs:
        texts.append(f"The contact sheets show the first {result.num_pairs_shown} pairs (--max_sheets).")
    if any(kind.conflicting_labels for kind in kinds):
        path = result.folder / "conflicting_labels.csv"
        texts.append(f"To exclude both images of each conflicting pair, pass --exclude_pairs {path}.")
    if any(kind.across_splits for kind in kinds):
        texts.append(f"Pairs across splits inflate the scores: see {result.folder / 'across_splits.csv'}.")
    texts.append(f"Review contact_sheet_*.png in {result.folder / FIGURES_DIR} before you use the list.")
    rows = [[count, describe_pair_kind(kind)] for kind, count in kinds.items()]
    table = [Table([Column("pairs", "r"), Column("kind")], rows)] if rows else []
    return [Paragraph(found), *table, *(Paragraph(text) for text in texts)]


def build_shard(result: Any, values: Values) -> list[Block]:
    """Builds the number and size of the shards."""
    counts = ", ".join(f"{split} {count:,}" for split, count in result.images_by_split.items())
    shards = pluralize(result.num_shards, "complete shard" if values.get("check") else "shard")
    return [Paragraph(f"{result.folder}: {shards}, {counts} images, {format_bytes(result.size)}")]


def build_cache(result: Any, values: Values) -> list[Block]:
    """Builds the entries of the cache, the damaged files, or the size of the removed ones."""
    action = values.get("action", "list")
    if action == "remove":
        return [Paragraph(f"Freed {format_bytes(result)}.")]
    if action == "check":
        summary = f"Removed {pluralize(len(result), 'damaged file')}." if result else "No cached file is damaged."
        return [*(Paragraph(path) for path in result), Paragraph(summary)]
    if not result:
        return [Paragraph(f"The cache {cache_folder()} is empty.")]
    rows = [
        [entry.name, format_bytes(entry.size), entry.num_images, date.fromtimestamp(entry.last_used).isoformat()]
        + [entry.description]
        for entry in result
    ]
    columns = [Column("name"), *number_columns(["size", "images"]), Column("last used"), Column("", below=True)]
    total = format_bytes(sum(entry.size for entry in result))
    return [Table(columns, rows), Paragraph(f"{total} in {cache_folder()}")]


BUILDERS: dict[str, Callable[[Any, Values], list[Block]]] = {
    "audit": build_audit,
    "cache": build_cache,
    "convert": build_convert,
    "crossval": build_crossval,
    "distill": build_finetune,
    "ensemble": build_ensemble,
    "evaluate": build_evaluate,
    "explain": build_explain,
    "export": build_export,
    "export_onnx": build_export_onnx,
    "finetune": build_finetune,
    "plan": build_finetune,
    "prepare": build_prepare,
    "pretrain": build_pretrain,
    "probe": lambda record, values: build_probe_summary(record),
    "push": build_push,
    "push_dataset": build_push,
    "reconstruct": build_reconstruct,
    "report": build_report,
    "search": build_search,
    "shard": build_shard,
}
BENCHMARK_COMMANDS = ("finetune", "distill", "crossval", "search")  # they write report.md for a run on a benchmark
