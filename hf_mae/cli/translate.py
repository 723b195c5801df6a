"""`hf-mae translate`: a command of the reference, RETFound or timm as the one here."""

from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("translate")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..settings.translation import translate

    print(translate(asked.flags["command"]).summary())
    return 0
