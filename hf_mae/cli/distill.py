"""`hf-mae distill`: teach one stock model what an ensemble knows."""

from .output import print_finetune_result
from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("distill")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.distill import distill
    from .logs import configure_logging

    configure_logging(asked.quiet)
    print_finetune_result(distill(recipe=asked.recipe, **asked.flags), asked.json)
    return 0
