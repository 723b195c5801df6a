"""`hf-mae report`: runs beside the published rows."""

from .output import print_json
from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("report")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.report import report
    from .logs import configure_logging

    configure_logging(asked.quiet)
    found = report(**asked.flags)
    if asked.json:
        print_json(found.comparison.to_dict())
        return 0
    print(found.summary(), end="")
    print(f"\nWritten to {found.folder}: {', '.join(found.files)}")
    return 0
