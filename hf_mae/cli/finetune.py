"""`hf-mae finetune`: fine-tune a checkpoint on labelled images."""

from .flags import Parser
from .lines import print_json, print_plan, print_report_of_benchmark, width


def parser() -> Parser:
    """Its flags."""
    return Parser("finetune")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..reporting.screen import table
    from ..runs.record_files import to_json
    from ..training.planning import Plan
    from ..workflows.finetune import finetune
    from .logs import show_logs

    show_logs(asked.quiet)
    record = finetune(recipe=asked.recipe, **asked.flags)
    if record is None:
        return 0
    if isinstance(record, Plan):
        print_plan(record, asked.json)
        return 0
    if asked.json:
        print_json(to_json(record))
        return 0
    folder = record.settings["output_dir"]
    if record.scores:
        print(table(record.scores, width()))
    print_report_of_benchmark(record.data.benchmark, folder)
    print(f"The model, its card, predictions and figures are in {folder}. Next:")
    print(f"  hf-mae predict {folder} IMAGES    classify images")
    print(f"  hf-mae report {folder}    scores with intervals, and the study in words")
    print(f"  hf-mae explain {folder} IMAGES --output_dir explained    see where it looks")
    return 0
