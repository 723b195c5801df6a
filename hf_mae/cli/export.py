"""`hf-mae export`: transformers weights -> a reference checkpoint."""

from .flags import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("export")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.export import export
    from .logs import show_logs

    show_logs(asked.quiet)
    made = export(**asked.flags)
    destination = asked.flags["destination"]
    print(f"Written to {destination}: width {made.hidden_size}, {made.num_hidden_layers} blocks")
    return 0
