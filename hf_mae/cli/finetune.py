"""`hf-mae finetune`: fine-tune a checkpoint on labelled images."""

from .flags import Parser
from .lines import print_report_of_benchmark


def parser() -> Parser:
    """Its flags."""
    return Parser("finetune")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..reporting.screen import table
    from ..workflows.finetune import finetune
    from .logs import show_logs

    show_logs()
    record = finetune(recipe=asked.recipe, **asked.flags)
    if record is None:
        return 0
    folder = record.settings["output_dir"]
    if record.scores:
        print(table(record.scores))
    print_report_of_benchmark(record.data.benchmark, folder)
    print(f"The model, its card, predictions and figures are in {folder}")
    return 0
