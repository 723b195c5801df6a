"""`hf-mae report`: runs beside the published rows."""

from .flags import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("report")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.report import report
    from .logs import show_logs

    show_logs()
    found = report(**asked.flags)
    print(found.summary(), end="")
    print(f"\nWritten to {found.folder}: {', '.join(found.written)}")
    return 0
