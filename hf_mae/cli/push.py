"""`hf-mae push`: a finished run to the Hugging Face Hub."""

from .flags import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("push")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.push import push
    from .logs import show_logs

    show_logs(asked.quiet)
    print(f"{asked.flags['run']} is at {push(**asked.flags)}")
    return 0
