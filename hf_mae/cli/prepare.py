"""`hf-mae prepare`: check and cache a data set, and print its table."""

from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("prepare")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..reporting.console import format_class_table
    from ..workflows.prepare import prepare
    from .logs import configure_logging

    configure_logging(asked.quiet)
    found = prepare(recipe=asked.recipe, **asked.flags)
    print(format_class_table(found.splits))
    print(f"mean {_format_numbers(found.mean)}, std {_format_numbers(found.std)}")
    return 0


def _format_numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4f}" for value in values)
