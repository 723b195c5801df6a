"""Prints the results of commands: `print_COMMAND`, with `print_result` as the default.

Each takes the result of the workflow and the parsed arguments, and returns the exit status (None: 0).
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import escape_control_characters, pluralize
from ..files.atomic import finite_or_null
from .parser import ParsedArgs


def print_json(result: Any) -> None:
    """Prints a result as one JSON document."""
    from ..runs.record import RunRecord
    from ..runs.record_io import record_to_dict

    if isinstance(result, RunRecord):
        values = record_to_dict(result)
    else:
        values = result.to_dict() if hasattr(result, "to_dict") else asdict(result)
    print(json.dumps(finite_or_null(values), indent=2, default=str))


def print_result(result: Any, args: ParsedArgs) -> None:
    """Prints the text of a result."""
    print(result)


def _print_document(document: Any) -> None:
    from ..reporting.renderers import terminal

    if document:
        print(terminal.render(document))


def _print_benchmark_report(benchmark: str | None, folder: str) -> None:
    """Prints the comparison with published results, which a run on a benchmark writes to its folder."""
    report = Path(folder) / "report.md"
    if benchmark and report.is_file():
        if sys.stdout.isatty():
            print(f"Comparison with published results: {report}")
        else:
            print(f"\n{report.read_text(encoding='utf-8')}")


def _print_image_errors(command: str, errors: list[str]) -> None:
    for error in errors:
        print(escape_control_characters(f"hf-mae {command}: {error}"), file=sys.stderr)


def print_finetune(result: Any, args: ParsedArgs) -> None:
    """Prints the scores of a fine-tuning run and the next commands, or its plan (`--dry_run`)."""
    from ..models.introspection import is_vit
    from ..reporting.console import build_scores_summary
    from ..training.training_plan import Plan

    if isinstance(result, Plan):
        print_plan(result, args)
        return
    from ..conversion.stock_models import read_config

    folder = result.settings["output_dir"]
    _print_document(build_scores_summary(result.scores))
    _print_benchmark_report(result.data.benchmark, folder)
    print(f"The model, its card, predictions and figures are in {folder}. Next:")
    print(f"  hf-mae predict {folder} IMAGES")
    print(f"  hf-mae report {folder}")
    if is_vit(read_config(folder)):
        print(f"  hf-mae explain {folder} IMAGES --output_dir OUTPUT_DIR")


print_distill = print_finetune


def print_plan(plan: Any, args: ParsedArgs) -> None:
    """Prints the plan of a fine-tuning run."""
    from ..reporting.plan_summary import format_plan

    print(format_plan(plan))


def print_pretrain(record: Any, args: ParsedArgs) -> None:
    """Prints the folder of the pre-trained model and the next command."""
    folder = record.settings["output_dir"]
    print(f"The pre-trained model is in {folder}. Next: hf-mae finetune {folder} DATA")


def print_crossval(record: Any, args: ParsedArgs) -> None:
    """Prints the scores of all folds and seeds."""
    from ..reporting.console import build_crossval_summary

    folder = record.settings["output_dir"]
    _print_document(build_crossval_summary(record, folder))
    _print_benchmark_report(record.data.benchmark, folder)


def print_search(result: Any, args: ParsedArgs) -> None:
    """Prints the five best trials, and the scores of the model trained with the best."""
    from ..evaluation.metrics import display_scale
    from ..settings.metrics import metric_title
    from ..training.search import format_values

    print(f"{metric_title(result.metric)} on the selection split, best of {pluralize(len(result.trials), 'trial')}:")
    for trial in sorted(result.trials, key=lambda trial: trial.score, reverse=result.greater_is_better)[:5]:
        pruned = " (pruned)" if trial.pruned else ""
        score = display_scale(result.metric) * trial.score
        print(f"  {score:6.2f}  trial {trial.number + 1}: {format_values(trial.values)}{pruned}")
    if result.record is not None:
        print_finetune(result.record, args)


def print_ensemble(result: Any, args: ParsedArgs) -> None:
    """Prints the members of the ensemble and the next command."""
    for number, source in enumerate(result.sources, 1):
        print(f"member {number}: {source}")
    size = f"{pluralize(len(result.sources), 'model')}, {pluralize(len(result.classes), 'class')}"
    print(f"Ensemble ({size}): {result.folder}")
    print(f"Next: hf-mae evaluate {result.folder} DATA --split test --output_dir OUTPUT_DIR")


def print_evaluate(record: Any, args: ParsedArgs) -> None:
    """Prints the scores of a split, and the gain of temperature scaling."""
    from ..reporting.console import build_scores_summary
    from ..reporting.run_sentences import describe_calibration_gain

    _print_document(build_scores_summary(record.scores))
    if record.calibration:
        print(describe_calibration_gain(record.calibration, next(iter(record.scores))))
        if "fitted_on" in record.calibration:
            folder = record.settings["output_dir"]
            print("The temperature was fitted on these images, so these scores are optimistic.")
            print(f"To use it in evaluate and predict, pass --temperature {folder}.")


def print_report(result: Any, args: ParsedArgs) -> None:
    """Prints the report (on a terminal, its scores and comparisons in 80 columns) and the names of its files."""
    from ..reporting.build_report import build_report_summary
    from ..reporting.renderers.terminal import wrap_text

    if sys.stdout.isatty():
        _print_document(build_report_summary(result.comparison.tables))
        print(f"Classes, patients, operating points, subgroups and tests: {result.folder / 'report.md'}")
    else:
        print(result.summary(), end="")
    print("\n" + wrap_text(f"Written to {result.folder}: {', '.join(result.files)}", 2))


def print_probe(record: Any, args: ParsedArgs) -> None:
    """Prints the scores of the probes."""
    from ..reporting.console import build_probe_summary

    _print_document(build_probe_summary(record))


def print_predict(result: Any, args: ParsedArgs) -> int:
    """Prints the number of predictions, and the images that cannot be read."""
    if result.output:
        existing = f" ({result.num_existing} from an earlier run)" if result.num_existing else ""
        num_predicted, total = result.total - len(result.errors), pluralize(result.total, "image")
        print(f"Predicted {num_predicted} of {total}: {result.written_path}{existing}", file=sys.stderr)
        if result.is_merged:
            print(f"Merged {pluralize(result.num_shards, 'shard')}: {result.output}", file=sys.stderr)
    _print_image_errors("predict", result.errors)
    # A launcher ends all processes if one fails, so errors of a shard are in the table only.
    return 1 if result.errors and result.num_shards == 1 else 0


def print_explain(result: Any, args: ParsedArgs) -> int:
    """Prints the files of the explanations, and the images that cannot be read."""
    if args.options.values.get("images"):
        sheets = f"overlays and {pluralize(result.sheets, 'contact sheet')} (images_*.png) in {result.folder}"
        print(f"Explained {pluralize(result.num_explained, 'image')}: {sheets}")
    if result.mistakes:
        mistakes = f"{pluralize(result.mistakes, 'mistake')} of {pluralize(result.classes, 'class')}"
        print(f"Most confident mistakes ({mistakes}): {result.mistakes_sheet}")
    elif result.mistakes is not None:
        print(f"All {pluralize(result.images, 'image')} are classified correctly.")
    _print_image_errors("explain", result.errors)
    return 1 if result.errors else 0


def print_demo(page: Any, args: ParsedArgs) -> None:
    """Prints the address of the demo; serves it until Ctrl-C."""
    print(f"The demo runs at {page.local_url} (press Ctrl-C to stop)", flush=True)
    if args.options.values.get("share"):
        print(f"Public URL: {page.share_url}", flush=True)
    page.block_thread()


def print_reconstruct(result: Any, args: ParsedArgs) -> None:
    """Prints the figure of the reconstructions."""
    percent = f"{100 * result.mask_ratio:g} % of the patches masked"
    print(f"Reconstructed {pluralize(result.images, 'image')}, {percent}: {result.output}")


def print_convert(report: Any, args: ParsedArgs) -> None:
    """Prints the conversion report."""
    from ..reporting.conversion_summary import format_conversion

    print(format_conversion(report))
    print(f"Written to {args.options.values['output_dir']} (report: conversion.json)")


def print_export(sizes: Any, args: ParsedArgs) -> None:
    """Prints the exported file, and how timm evaluates an exported folder."""
    output = args.options.values["output"]
    print(f"Written to {output}: width {sizes.hidden_size}, {sizes.num_hidden_layers} blocks")
    if args.options.values.get("to") == "timm" and sizes.num_labels:
        class_map = f" --class-map {output}/class_map.txt" if (Path(output) / "class_map.txt").is_file() else ""
        print(f"To evaluate it: timm's validate.py --data-dir DATA --model local-dir:{output} --pretrained{class_map}")


def print_export_onnx(result: Any, args: ParsedArgs) -> None:
    """Prints the comparison with PyTorch, and the exported files."""
    from ..sharing.onnx import format_onnx_report

    print(format_onnx_report(result.check_results, result.sizes_mb))
    print(f"Written to {result.folder}: the ONNX model, its labels, and example.py (inference without torch)")


def print_push(url: str, args: ParsedArgs) -> None:
    """Prints the URL of the repository."""
    print(f"Pushed {args.options.values.get('model_name_or_path') or args.options.values['data_dir']} to {url}")


print_push_dataset = print_push


def print_prepare(result: Any, args: ParsedArgs) -> None:
    """Prints the class counts of the splits, and the mean and standard deviation of the pixels."""
    from ..reporting.console import class_table

    _print_document([class_table(result.splits)])
    mean, std = (" ".join(f"{value:.4f}" for value in values) for values in (result.mean, result.std))
    print(f"mean {mean}, std {std}")


def print_audit(result: Any, args: ParsedArgs) -> None:
    """Prints the near-duplicate pairs, or the label errors."""
    from ..reporting.audit import describe_pair_kind
    from ..reporting.console import build_label_findings
    from ..reporting.label_issues import LabelFindings
    from ..runs.record import FIGURES_DIR

    if isinstance(result, LabelFindings):
        _print_document(build_label_findings(result))
        return
    pairs, images = pluralize(result.num_pairs, "near-duplicate pair"), pluralize(result.num_images, "image")
    print(f"Found {pairs} ({pluralize(result.num_images_in_pairs, 'image')}) in {images}.")
    for kind, count in result.pairs_by_kind.items():
        print(f"  {count:6d}  {describe_pair_kind(kind)}")
    if result.num_pairs_shown < result.num_pairs:
        print(f"The contact sheets show the first {result.num_pairs_shown} pairs (--max_sheets).")
    if any(kind.conflicting_labels for kind in result.pairs_by_kind):
        path = result.folder / "conflicting_labels.csv"
        print(f"To exclude both images of each conflicting pair, pass --exclude_pairs {path}.")
    if any(kind.across_splits for kind in result.pairs_by_kind):
        print(f"Pairs across splits inflate the scores: see {result.folder / 'across_splits.csv'}.")
    print(f"Review contact_sheet_*.png in {result.folder / FIGURES_DIR} before you use the list.")


def print_shard(result: Any, args: ParsedArgs) -> None:
    """Prints the number and size of the shards."""
    counts = ", ".join(f"{split} {count:,}" for split, count in result.images_by_split.items())
    shards = pluralize(result.num_shards, "complete shard" if args.options.values.get("check") else "shard")
    from ..data.images.cache_eviction import format_bytes

    print(f"{result.folder}: {shards}, {counts} images, {format_bytes(result.size)}")


def print_cache(result: Any, args: ParsedArgs) -> None:
    """Prints the entries of the cache, damaged entries, or the removed entries."""
    from ..reporting.console import format_cache_result

    print(format_cache_result(args.options.values.get("action", "list"), result))
