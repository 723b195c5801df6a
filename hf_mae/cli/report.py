"""`hf-mae report`: runs beside the published rows."""

from .flags import Parser
from .lines import print_json


def parser() -> Parser:
    """Its flags."""
    return Parser("report")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.report import report
    from .logs import show_logs

    show_logs(asked.quiet)
    found = report(**asked.flags)
    if asked.json:
        print_json(found.found.to_dict())
        return 0
    print(found.summary(), end="")
    print(f"\nWritten to {found.folder}: {', '.join(found.written)}")
    return 0
