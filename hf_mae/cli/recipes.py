"""`hf-mae recipes`: the recipes of the package."""

from ..errors import CommandLineError
from ..settings.recipes import RECIPES_DIR, find_recipe, recipe_names
from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("recipes")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    action, name = asked.flags.get("action", "list"), asked.flags.get("name")
    if action == "show":
        if not name:
            raise CommandLineError("show needs the NAME of a recipe (see hf-mae recipes).")
        print(find_recipe(name).read_text(encoding="utf-8"), end="")
        return 0
    for name in recipe_names():
        first = (RECIPES_DIR / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        print(f"{name:28} {first}")
    return 0
