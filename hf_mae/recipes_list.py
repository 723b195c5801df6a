"""`hf-mae recipes` and `hf-mae recipes show NAME`."""

from .cli import Parser
from .recipe import RECIPES, find_recipe, recipe_names


def main(argv: list[str]) -> int:
    parser = Parser("recipes", "List the recipes of the package, or print one.")
    parser.add_argument("action", nargs="?", choices=["list", "show"], default="list")
    parser.add_argument("name", nargs="?", help="of the recipe to show")
    options = parser.parse_args(argv)
    if options.action == "show":
        if not options.name:
            parser.error("show needs the NAME of a recipe")
        print(find_recipe(options.name).read_text(encoding="utf-8"), end="")
        return 0
    for name in recipe_names():
        first = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        print(f"{name:28} {first}")
    return 0
