"""`hf-mae explain`: where a classifier looks, and its most confident mistakes."""

import sys

from ..errors import escape_control_characters, pluralize
from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("explain")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.explain import explain
    from .logs import configure_logging

    configure_logging(asked.quiet)
    made = explain(recipe=asked.recipe, **asked.flags)
    if asked.flags.get("images"):
        sheets = f"overlays, and {made.sheets} sheets images_*.png, are in {made.folder}"
        print(f"{pluralize(made.num_explained, 'image')} explained: {sheets}")
    if made.mistakes is not None:
        if made.mistakes:
            print(f"{pluralize(made.mistakes, 'mistake')} of {pluralize(made.classes, 'class')}: {made.mistakes_sheet}")
        else:
            print(f"No mistake in the {pluralize(made.images, 'image')}.")
    for fault in made.errors:
        print(escape_control_characters(f"hf-mae explain: {fault}"), file=sys.stderr)
    return 1 if made.errors else 0
