"""`hf-mae plan`: what a fine-tuning would do."""

from .flags import Parser
from .lines import print_plan


def parser() -> Parser:
    """Its flags."""
    return Parser("plan")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.plan import plan
    from .logs import show_logs

    show_logs(asked.quiet)
    print_plan(plan(recipe=asked.recipe, **asked.flags), asked.json)
    return 0
