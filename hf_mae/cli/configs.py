"""`hf-mae configs`: the accelerate configs that ship with the package."""

from ..settings.accelerate_configs import describe_launch_config, find_launch_config, list_launch_configs
from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("configs")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    if asked.flags.get("name"):
        print(find_launch_config(asked.flags["name"]))
        return 0
    known = list_launch_configs()
    print(next(iter(known.values())).parent)
    for name, path in known.items():
        print(f"  {name:12} {describe_launch_config(path)}")
    return 0
