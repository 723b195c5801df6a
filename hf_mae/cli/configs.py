"""`hf-mae configs`: the accelerate configs that ship with the package."""

from ..settings.launching import describe, find_config, launch_configs
from .flags import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("configs")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    if asked.flags.get("name"):
        print(find_config(asked.flags["name"]))
        return 0
    known = launch_configs()
    print(next(iter(known.values())).parent)
    for name, path in known.items():
        print(f"  {name:12} {describe(path)}")
    return 0
