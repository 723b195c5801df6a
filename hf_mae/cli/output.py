"""Lines that several verbs print."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any


def print_benchmark_report(benchmark: str | None, folder: str) -> None:
    """The report beside the published rows, which a run on a benchmark leaves in its folder."""
    report = Path(folder) / "report.md"
    if benchmark and report.is_file():
        print(f"\n{report.read_text(encoding='utf-8')}")


def print_json(values: Any) -> None:
    """A result for scripts: one JSON document."""
    print(json.dumps(values, indent=2, default=str))


def print_plan(plan: Any, as_json: bool) -> None:
    """A plan, for people or for scripts."""
    print_json(plan.to_dict()) if as_json else print("\n".join(plan.lines()))


def terminal_width() -> int | None:
    """Columns of the terminal; None: the output is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _is_saved_vit(folder: str) -> bool:
    """Whether a saved model is one that `explain` looks into."""
    from transformers import AutoConfig

    from ..models.introspection import is_vit

    return is_vit(AutoConfig.from_pretrained(folder))


def print_finetune_result(record: Any, as_json: bool) -> None:
    """The record of a fine-tuning and what comes next, or its plan; nothing on processes other than the main one."""
    from ..reporting.console import format_scores_table
    from ..runs.record_io import record_to_dict
    from ..training.training_plan import Plan

    if record is None:
        return
    if isinstance(record, Plan):
        print_plan(record, as_json)
        return
    if as_json:
        print_json(record_to_dict(record))
        return
    folder = record.settings["output_dir"]
    if record.scores:
        print(format_scores_table(record.scores, terminal_width()))
    print_benchmark_report(record.data.benchmark, folder)
    print(f"The model, its card, predictions and figures are in {folder}. Next:")
    print(f"  hf-mae predict {folder} IMAGES    classify images")
    print(f"  hf-mae report {folder}    scores with intervals, and the study in words")
    if _is_saved_vit(folder):
        print(f"  hf-mae explain {folder} IMAGES --output_dir explained    see where it looks")
