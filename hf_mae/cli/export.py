"""`hf-mae export`: transformers weights -> a reference checkpoint, or a timm folder."""

from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("export")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.export import export
    from .logs import configure_logging

    configure_logging(asked.quiet)
    made = export(**asked.flags)
    sizes = made.architecture
    print(f"Written to {asked.flags['destination']}: width {sizes.hidden_size}, {sizes.num_hidden_layers} blocks")
    if made.timm_validate_args:
        print(f"timm evaluates it with: validate.py --data-dir IMAGES {made.timm_validate_args}")
    if made.note:
        print(made.note)
    return 0
