"""`hf-mae probe`: linear probe and k-NN on a checkpoint's frozen features."""

from .flags import Parser
from .lines import print_json


def parser() -> Parser:
    """Its flags."""
    return Parser("probe")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..reporting.screen import probe_table
    from ..runs.record_files import to_json
    from ..workflows.probe import probe
    from .logs import show_logs

    show_logs(asked.quiet)
    record = probe(recipe=asked.recipe, **asked.flags)
    print_json(to_json(record)) if asked.json else print(probe_table(record))
    return 0
