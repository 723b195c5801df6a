"""`hf-mae finetune`: fine-tune a checkpoint on labelled images."""

from .flags import Parser
from .lines import print_finetuned


def parser() -> Parser:
    """Its flags."""
    return Parser("finetune")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.finetune import finetune
    from .logs import show_logs

    show_logs(asked.quiet)
    print_finetuned(finetune(recipe=asked.recipe, **asked.flags), asked.json)
    return 0
