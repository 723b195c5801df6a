"""`hf-mae prepare`: check and cache a data set, and print its table."""

from .flags import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("prepare")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..reporting.screen import class_table
    from ..workflows.prepare import prepare
    from .logs import show_logs

    show_logs(asked.quiet)
    found = prepare(recipe=asked.recipe, **asked.flags)
    print(class_table(found.splits))
    print(f"mean {_numbers(found.mean)}, std {_numbers(found.std)}")
    return 0


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4f}" for value in values)
