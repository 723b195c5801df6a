"""`hf-mae probe`: linear probe and k-NN on a checkpoint's frozen features."""

from .output import print_json
from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("probe")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..reporting.console import format_probe_table
    from ..runs.record_io import record_to_dict
    from ..workflows.probe import probe
    from .logs import configure_logging

    configure_logging(asked.quiet)
    record = probe(recipe=asked.recipe, **asked.flags)
    print_json(record_to_dict(record)) if asked.json else print(format_probe_table(record))
    return 0
