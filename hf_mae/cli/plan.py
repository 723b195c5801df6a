"""`hf-mae plan`: what a fine-tuning would do."""

from .flags import Parser
from .lines import print_json


def parser() -> Parser:
    """Its flags."""
    return Parser("plan")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.plan import plan
    from .logs import show_logs

    show_logs(asked.quiet)
    made = plan(recipe=asked.recipe, **asked.flags)
    print_json(made.to_dict()) if asked.json else print("\n".join(made.lines()))
    return 0
