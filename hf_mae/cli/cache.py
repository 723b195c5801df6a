"""`hf-mae cache`: what is kept between runs."""

from .flags import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("cache")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..reporting.screen import cache_lines
    from ..workflows.cache import cache
    from .logs import show_logs

    show_logs(asked.quiet)
    print(cache_lines(asked.flags.get("action", "list"), cache(**asked.flags)))
    return 0
