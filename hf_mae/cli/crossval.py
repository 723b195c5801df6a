"""`hf-mae crossval`: train and evaluate every fold and seed."""

from .output import print_benchmark_report, print_json
from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("crossval")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..reporting.console import format_crossval_table
    from ..runs.record_io import record_to_dict
    from ..workflows.crossval import crossval
    from .logs import configure_logging

    configure_logging(asked.quiet)
    record = crossval(recipe=asked.recipe, **asked.flags)
    if record is None:
        return 0
    if asked.json:
        print_json(record_to_dict(record))
        return 0
    folder = record.settings["output_dir"]
    print(format_crossval_table(record, folder))
    print_benchmark_report(record.data.benchmark, folder)
    return 0
