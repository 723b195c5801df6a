"""`hf-mae explain`: where a classifier looks, and its most confident mistakes."""

import sys

from ..errors import counted, printable
from .flags import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("explain")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.explain import explain
    from .logs import show_logs

    show_logs(asked.quiet)
    made = explain(recipe=asked.recipe, **asked.flags)
    if asked.flags.get("images"):
        sheets = f"overlays, and {made.sheets} sheets images_*.png, are in {made.folder}"
        print(f"{counted(made.explained, 'image')} explained: {sheets}")
    if made.mistakes is not None:
        if made.mistakes:
            print(f"{counted(made.mistakes, 'mistake')} of {counted(made.classes, 'class')}: {made.mistakes_sheet}")
        else:
            print(f"No mistake in the {counted(made.images, 'image')}.")
    for fault in made.faults:
        print(printable(f"hf-mae explain: {fault}"), file=sys.stderr)
    return 1 if made.faults else 0
