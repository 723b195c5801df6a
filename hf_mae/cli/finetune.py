"""`hf-mae finetune`: fine-tune a checkpoint on labelled images."""

from .output import print_finetune_result
from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("finetune")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.finetune import finetune
    from .logs import configure_logging

    configure_logging(asked.quiet)
    print_finetune_result(finetune(recipe=asked.recipe, **asked.flags), asked.json)
    return 0
