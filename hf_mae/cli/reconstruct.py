"""`hf-mae reconstruct`: what a masked autoencoder makes of hidden patches."""

from ..errors import pluralize
from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("reconstruct")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.reconstruct import reconstruct
    from .logs import configure_logging

    configure_logging(asked.quiet)
    made = reconstruct(**asked.flags)
    print(f"{pluralize(made.images, 'image')}, {100 * made.mask_ratio:g} % of their patches hidden: {made.output}")
    return 0
