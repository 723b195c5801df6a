"""`hf-mae distill`: teach one stock model what an ensemble knows."""

from .flags import Parser
from .lines import print_finetuned


def parser() -> Parser:
    """Its flags."""
    return Parser("distill")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.distill import distill
    from .logs import show_logs

    show_logs(asked.quiet)
    print_finetuned(distill(recipe=asked.recipe, **asked.flags), asked.json)
    return 0
