"""`hf-mae cache`: what is kept between runs."""

from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("cache")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..reporting.console import format_cache_result
    from ..workflows.cache import cache
    from .logs import configure_logging

    configure_logging(asked.quiet)
    print(format_cache_result(asked.flags.get("action", "list"), cache(**asked.flags)))
    return 0
