"""`hf-mae crossval`: train and evaluate every fold and seed."""

from .flags import Parser
from .lines import print_json, print_report_of_benchmark


def parser() -> Parser:
    """Its flags."""
    return Parser("crossval")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..reporting.screen import crossval_table
    from ..runs.record_files import to_json
    from ..workflows.crossval import crossval
    from .logs import show_logs

    show_logs(asked.quiet)
    record = crossval(recipe=asked.recipe, **asked.flags)
    if record is None:
        return 0
    if asked.json:
        print_json(to_json(record))
        return 0
    folder = record.settings["output_dir"]
    print(crossval_table(record, folder))
    print_report_of_benchmark(record.data.benchmark, folder)
    return 0
