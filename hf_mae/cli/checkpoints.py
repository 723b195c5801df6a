"""`hf-mae checkpoints`: the public checkpoints."""

from ..errors import CommandLineError
from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("checkpoints")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    action, name = asked.flags.get("action", "list"), asked.flags.get("name", "")
    if action != "list" and not name:
        raise CommandLineError(f"{action} needs the NAME of a checkpoint (see hf-mae checkpoints).")
    if action == "fetch":
        from ..workflows.checkpoints import fetch_checkpoint
        from .logs import configure_logging

        configure_logging(asked.quiet)
        print(fetch_checkpoint(name))
        return 0
    from ..reporting.console import format_checkpoint, format_model_zoo
    from ..workflows.checkpoints import find_checkpoint

    print(format_model_zoo() if action == "list" else format_checkpoint(find_checkpoint(name)))
    return 0
