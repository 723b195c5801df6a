"""`hf-mae checkpoints`: the public checkpoints."""

from ..errors import CommandLineError
from .flags import Parser


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
        from .logs import show_logs

        show_logs(asked.quiet)
        print(fetch_checkpoint(name))
        return 0
    from ..reporting.screen import catalogue_table, checkpoint_table
    from ..workflows.checkpoints import find_checkpoint

    print(catalogue_table() if action == "list" else checkpoint_table(find_checkpoint(name)))
    return 0
