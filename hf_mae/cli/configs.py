"""`hf-mae configs`: the accelerate configs that ship with the package."""

from ..errors import CommandLineError, nearest
from ..settings.launching import describe, launch_configs
from .flags import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("configs")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    known, name = launch_configs(), asked.flags.get("name")
    if name:
        if name not in known:
            raise CommandLineError(
                f"There is no config {name}{nearest(name, known)}: choose one of {', '.join(known)}."
            )
        print(known[name])
        return 0
    print(next(iter(known.values())).parent)
    for name, path in known.items():
        print(f"  {name:12} {describe(path)}")
    return 0
