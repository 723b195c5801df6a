"""`hf-mae probe`: linear probe and k-NN on a checkpoint's frozen features."""

from .flags import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("probe")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..reporting.screen import probe_table
    from ..workflows.probe import probe
    from .logs import show_logs

    show_logs()
    print(probe_table(probe(recipe=asked.recipe, **asked.flags)))
    return 0
