"""`hf-mae plan`: what a fine-tuning would do."""

from .output import print_plan
from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("plan")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.plan import plan
    from .logs import configure_logging

    configure_logging(asked.quiet)
    print_plan(plan(recipe=asked.recipe, **asked.flags), asked.json)
    return 0
