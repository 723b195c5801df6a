"""`hf-mae push`: a finished run to the Hugging Face Hub."""

from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("push")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.push import push
    from .logs import configure_logging

    configure_logging(asked.quiet)
    print(f"{asked.flags['run']} is at {push(**asked.flags)}")
    return 0
