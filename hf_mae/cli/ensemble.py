"""`hf-mae ensemble`: several fine-tuned models as one."""

from ..errors import pluralize
from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("ensemble")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.ensemble import ensemble
    from .logs import configure_logging

    configure_logging(asked.quiet)
    made = ensemble(**asked.flags)
    for number, source in enumerate(made.sources, 1):
        print(f"member {number}: {source}")
    print(
        f"An ensemble of {pluralize(len(made.sources), 'model')}, {pluralize(len(made.classes), 'class')}: {made.folder}"
    )
    print(f"Next: hf-mae evaluate {made.folder} DATA --split test --output_dir SCORES")
    return 0
